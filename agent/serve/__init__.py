"""The server that answers scrapes with the metrics published last, and shows a live page; imported by run/.

`server` listens, and one thread serves all `connections`. `authentication` lets the user in, and `pages` answers.
`live_view` says what the live page shows, `recent_power` keeps what its plots show, `live_page` and `plot` draw it.
"""
