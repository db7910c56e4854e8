"""`wattpush watch`: live readings in a terminal or as lines; imported by commands/.

`watching` is the loop, with the thread that reads the sensors. `history` keeps the readings, `layout` and `plain` turn
them into text (`glyphs` draws bars, sparklines and numbers), `live` writes the text to a terminal or a pipe.
"""
