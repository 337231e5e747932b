"""The built-in models that accounts are kept in.

Room: definitions only, one set per application. They replicate like any document of that
application and are invisible to the data routes (`$` names).

- `$account`: who someone is and how they sign in. Its id is the user id. It follows `lww` so that
  a verifier never shows up in a list of conflicts.
- `$role`: what someone may do; its id is the user id too. It is a document apart because only
  admin nodes may write it (SPEC, "Verdicts"), while any member node may write accounts.
- `$mfa`: the second factor of an account; its id is the user id. It is a document apart so that whoever
  reads accounts does not come by secrets.
- `$apikey`: one API key; its id is part of the key's text.
- `$role_account`, `$role_mfa`, `$role_key`: what counts in the place of these of an administrator, and keys with the
  scope `admin`. Their names make them models that count from admin nodes only, as `$role` is. See `administrators`.
- `$signout`: one ended session; its id is the session id.
- `$userdata`: one value that an application keeps about one user; its id follows from both names,
  so that two devices that set the same key apart write the same document.
"""

import hashlib

from protocol.ids import builtin_model_id
from protocol.schema import Field, FieldType, Model

ACCOUNT = "$account"
ROLE = "$role"
MFA = "$mfa"
APIKEY = "$apikey"
ADMIN_ACCOUNT = "$role_account"
ADMIN_MFA = "$role_mfa"
ADMIN_KEY = "$role_key"
SIGNOUT = "$signout"
USERDATA = "$userdata"

ADMIN_ROLE = "admin"


def account_models(application: str) -> tuple[Model, ...]:
    """The models to register for an application before its accounts can be used."""
    return (
        _model(
            application,
            ACCOUNT,
            *_credential_fields(),
            Field(name="interests", type=FieldType.SET),
            Field(name="profile", type=FieldType.JSON),
        ),
        _model(application, ADMIN_ACCOUNT, *_credential_fields()),
        _model(application, ROLE, Field(name="roles", type=FieldType.SET)),
        *(
            _model(
                application,
                name,
                Field(name="secret", type=FieldType.STRING),  # none: not enabled
                Field(name="set", type=FieldType.STRING),  # which recovery codes count
                Field(name="codes", type=FieldType.SET),  # `<set>:<hash>`
            )
            for name in (MFA, ADMIN_MFA)
        ),
        _model(application, APIKEY, *_key_fields()),
        _model(application, ADMIN_KEY, *_key_fields()),
        _model(
            application,
            SIGNOUT,
            Field(name="user", type=FieldType.STRING, required=True),
            Field(name="node", type=FieldType.STRING, required=True, indexed=True),
            Field(name="until_ms", type=FieldType.INTEGER, required=True, indexed=True),
        ),
        _model(
            application,
            USERDATA,
            Field(name="user", type=FieldType.STRING, required=True, indexed=True),
            Field(name="key", type=FieldType.STRING, required=True),
            Field(name="value", type=FieldType.JSON),
        ),
    )


def _credential_fields() -> tuple[Field, ...]:
    return (
        Field(
            name="email", type=FieldType.STRING, required=True, indexed=True
        ),  # twins may exist: `accounts`
        Field(name="username", type=FieldType.STRING, required=True),
        Field(name="verifier", type=FieldType.STRING),  # none: cannot sign in
        Field(name="keys", type=FieldType.JSON),  # `user_keys`: what to encrypt to
        Field(name="recovery", type=FieldType.STRING),  # the key, sealed under the recovery code
        Field(name="generation", type=FieldType.STRING),  # new with each password: ends older sessions
        Field(name="kept_session", type=FieldType.STRING),  # but for the one that made the change
        Field(name="credentials_at", type=FieldType.INTEGER),
        Field(name="keys_generation", type=FieldType.STRING),  # new: ends the API keys made before
        Field(name="disabled", type=FieldType.BOOLEAN, default=False),
    )


def _key_fields() -> tuple[Field, ...]:
    return (
        Field(name="user", type=FieldType.STRING, required=True, indexed=True),
        Field(name="name", type=FieldType.STRING),
        Field(name="scopes", type=FieldType.JSON, required=True),
        Field(name="hash", type=FieldType.STRING, required=True),
        Field(name="expires_ms", type=FieldType.INTEGER),  # none: never
        Field(name="generation", type=FieldType.STRING),  # the account's `keys_generation` when it was made
    )


def userdata_id(user: str, key: str) -> str:
    """The id of the document that holds `key` of `user`."""
    return hashlib.blake2b(f"{user}\0{key}".encode(), digest_size=20).hexdigest()


def _model(application: str, name: str, *fields: Field) -> Model:
    return Model(
        id=builtin_model_id(application, name),
        application=application,
        name=name,
        fields={field.name: field for field in fields},
        conflict_strategy="lww",
    )
