"""Random commands for the toy rules: few names and numbers, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from control.state.commands import (
    AnyCommand,
    CreateAuthKey,
    CreateUser,
    DeleteNode,
    DeleteUser,
    ExpireNode,
    RemoveStale,
    RenameUser,
    RevokeAuthKey,
    SetSetting,
)
from tests.control.state.toy import register

NAMES = st.sampled_from(["anna", "berta", "clara"])
NUMBERS = st.integers(1, 5)
COMMANDS: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(CreateUser, name=NAMES),
    st.builds(RenameUser, user=NAMES, name=NAMES),
    st.builds(DeleteUser, user=NAMES),
    st.builds(register, NUMBERS, NUMBERS),
    st.builds(ExpireNode, node=NUMBERS.map(str)),
    st.builds(DeleteNode, node=NUMBERS.map(str)),
    st.builds(CreateAuthKey, id=NAMES, mac=st.binary(max_size=4), expiry_s=st.floats(0, 1e6)),
    st.builds(RevokeAuthKey, id=NAMES),
    st.builds(RemoveStale),
    st.builds(SetSetting, name=NAMES, value=st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
)
