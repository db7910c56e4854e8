"""`wattpush measure`: the energy that each device takes while a command runs; imported by commands/.

`timeline` turns the readings of a device into its power over time, and `span` adds up the part of it in which the
command ran. `measuring` is the loop: it reads the devices, and runs the command (`process`) as often as asked.
`results` computes what is shown, `table` and `report` show it to a person and to a program.
"""
