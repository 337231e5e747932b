"""The built-in models of what is done with people's data: erasures and who carried them out, consents, breaches.

Room: definitions only, one set per application. They replicate like any document and are invisible to the data routes.

- `$erasure`: that documents were to be erased, and which: by model and id, never by content. Made in one commit with
  the erasures themselves.
- `$erased`: one node holds nothing any more of an erasure's documents; its id is the erasure's, a dot, and the node's.
- `$consent`: what a user has agreed to; its id is the user's, each consent a field of its own.
- `$breach`: that data of some users got into wrong hands.
- `$retention`: for how many days documents of a model are kept; its id is the model's.
"""

from protocol.ids import builtin_model_id
from protocol.schema import Field, FieldType, Model

ERASURE = "$erasure"
ERASED = "$erased"
CONSENT = "$consent"
BREACH = "$breach"
RETENTION = "$retention"


def privacy_models(application: str) -> tuple[Model, ...]:
    """The models to register for an application."""
    return (
        _model(
            application,
            ERASURE,
            Field(name="node", type=FieldType.STRING, required=True),
            Field(name="kind", type=FieldType.STRING, required=True),  # account, document, retention
            Field(name="items", type=FieldType.JSON, required=True),  # [model id, document id] of each
        ),
        _model(
            application,
            ERASED,
            Field(name="erasure", type=FieldType.STRING, required=True, indexed=True),
            Field(name="node", type=FieldType.STRING, required=True),
        ),
        _model(application, CONSENT),
        _model(
            application,
            BREACH,
            Field(name="affected", type=FieldType.JSON, required=True),  # user ids
            Field(name="description", type=FieldType.STRING, required=True),
            Field(name="severity", type=FieldType.STRING, required=True),
        ),
        _model(application, RETENTION, Field(name="days", type=FieldType.INTEGER)),
    )


def _model(application: str, name: str, *fields: Field) -> Model:
    return Model(
        id=builtin_model_id(application, name),
        application=application,
        name=name,
        fields={field.name: field for field in fields},
        conflict_strategy="lww",
    )
