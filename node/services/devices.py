"""What people call the devices of a network.

Room: the built-in model `$node` in the application `default`, one document a node, whose id is the node's. A name
counts if the node itself gave it; failing that, one that an administrator's device or, for a reader, any other
gave, such as the one that let it in. Names are for people: everything else goes by node ids.
"""

from collections.abc import Callable
from typing import Any

from node.writer import Writer
from protocol.changes import DocumentChange, Edit, EditKind
from protocol.ids import NodeId, application_space_name, builtin_model_id, node_of, space_id
from protocol.membership import Role
from protocol.messages import NODE_NAME_MAX
from protocol.schema import Field, FieldType, Model
from storage.store import Store

NODE = "$node"
APPLICATION = "default"
_NAME = "name"


def node_model(application: str) -> Model:
    """The built-in model that names of devices are kept in."""
    return Model(
        id=builtin_model_id(application, NODE),
        application=application,
        name=NODE,
        fields={_NAME: Field(name=_NAME, type=FieldType.STRING)},
        conflict_strategy="lww",
    )


class Devices:
    """Use it on the event loop. `user` is who a name is written as."""

    def __init__(
        self, store: Store, writer: Writer, model: Callable[[], Model], *, name: str, user: str
    ) -> None:
        """`name` is what this device is called."""
        assert store.identity is not None
        self._store = store
        self._writer = writer
        self._model = model
        self._node = node_of(store.identity.author)
        self._space = space_id(store.identity.network_id, application_space_name(APPLICATION))
        self._user = user
        self.name = clean_name(name)

    def name_of(self, node: NodeId) -> str | None:
        """What a device is called; None if nobody has said."""
        if node == self._node:
            return self.name
        with self._store.read() as snapshot:
            document = snapshot.documents.get(self._space, self._model().id, node.hex())
        if document is None or not document.exists:
            return None
        members = self._store.members
        is_reader = members.role_of(node) in (Role.READER, None)
        by_others: str | None = None
        for layer, value in reversed(document.live_values(_NAME)):
            if not isinstance(value, str) or not (name := clean_name(value)):
                continue
            writer = node_of(layer.dot.author)
            if writer == node:
                return name
            if is_reader or members.role_of(writer) is Role.ADMIN:
                by_others = by_others or name
        return by_others

    async def publish(self) -> None:
        """Let the others know what this device is called, if there are others and it may write there."""
        members = self._store.members
        role = members.role_of(self._node, self._space)
        if role in (Role.ADMIN, Role.MEMBER) and len(members.nodes) > 1 and self._written() != self.name:
            await self._write(self._node, self.name)

    async def note(self, node: NodeId, name: str) -> None:
        """A device that was let in says what it is called."""
        role = self._store.members.role_of(self._node, self._space)
        if clean_name(name) and role in (Role.ADMIN, Role.MEMBER) and self.name_of(node) is None:
            await self._write(node, clean_name(name))

    def _written(self) -> Any:
        """What stands in this device's own document."""
        with self._store.read() as snapshot:
            document = snapshot.documents.get(self._space, self._model().id, self._node.hex())
        return document.values().get(_NAME) if document is not None and document.exists else None

    async def _write(self, node: NodeId, name: str) -> None:
        edit = Edit(EditKind.PUT, self._model(), node.hex(), {_NAME: name})
        await self._writer.submit(DocumentChange(APPLICATION, self._user, [edit]))


def clean_name(text: str) -> str:
    """A name as it may be shown on a line: printable, of bounded length."""
    return "".join(character for character in text if character.isprintable()).strip()[:NODE_NAME_MAX]
