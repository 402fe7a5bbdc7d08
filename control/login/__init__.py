"""Logins that wait for a person: the client holds a request open until somebody approves it (control.md §6.4)."""
