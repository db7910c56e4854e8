"""`wattpush watch`: live readings in a terminal or as lines; imported by commands/.

`watching` is the loop. `history` keeps the readings, `layout` and `plain` turn them into text (`glyphs` draws bars and
sparklines, `closing` the lines that stay at the end), `live` writes the text to a terminal or a pipe, and `keyboard`
reads the keys that end it.
"""
