"""`wattpush watch`: live readings in a terminal or as lines; imported by commands/.

`sweeper` reads in a thread of its own, `history` keeps what was read, `table` and `plain` put it into text (`figures`
and `strokes` are their letters), `live` and `output` bring the text to a terminal or a pipe, `watching` is the loop.
"""
