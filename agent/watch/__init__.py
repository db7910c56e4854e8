"""`wattpush watch`: what the sensors say now, in a terminal or as lines; nothing is pushed, nothing is saved.

`sweeper` reads in a thread of its own, `history` keeps what was read, `table` and `plain` put it into text (`figures`
and `strokes` are their letters), `live` and `output` bring the text to a terminal or a pipe, `watching` is the loop.
"""
