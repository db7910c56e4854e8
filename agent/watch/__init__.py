"""`wattpush watch`: what the sensors say now, in a terminal or as lines; nothing is pushed, nothing is saved.

`watching` is the loop, with the thread that reads; `history` keeps what was read; `layout` and `plain` put it into text
(`glyphs` are its letters); `live` brings the text to a terminal or a pipe.
"""
