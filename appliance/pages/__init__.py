"""Pages for people: what a browser shows that comes to this server.

    /                  is it running, and how do I connect a device?
    /register/<id>     where a client's login link leads: the command that approves it
    /apple, /windows   the steps on those platforms
    /admin             what the command line can do, until there is a console

`app.py` makes the Quart application; `templates/` and `static/` are what it shows. No scripts, one stylesheet. Nothing here
tells a stranger anything about nodes or users, and a GET never changes anything.
"""
