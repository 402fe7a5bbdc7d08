"""Logins that are not decided at once.

pending.py    the waiting room: the client holds a request open until a person approves it (control.md §6.4)
failures.py   how often a source may present a wrong auth key
"""
