"""What the services refuse, in their own words.

Room: the exceptions of `node.services`. They know no HTTP; `node.api.refusals` says which reply each
one is. None carries a secret, and those about signing in say the same whatever the reason.
"""

from collections.abc import Mapping


class Refusal(Exception):
    """Something a service will not do for this caller, now."""


class InvalidFields(Refusal):
    """Fields of a request are wrong: name to message, every fault at once."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("validation failed: " + ", ".join(sorted(faults)))
        self.faults = dict(faults)


class UnknownNames(Refusal):
    """Fields of a request, right in themselves, name what is not there: name to message, every one at once."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(faults.values())))
        self.faults = dict(faults)


class EmailTaken(Refusal):
    """An account of this application has this e-mail address."""

    def __init__(self) -> None:
        super().__init__("An account with this e-mail address exists")


class WrongCredentials(Refusal):
    """No account that can sign in has this e-mail address and password."""

    def __init__(self) -> None:
        super().__init__("Invalid e-mail address or password")


class WrongPassword(Refusal):
    """The password that should confirm a change is not the account's."""

    def __init__(self) -> None:
        super().__init__("The current password is wrong")


class MfaRequired(Refusal):
    """The password is right, and the account asks for a second factor."""

    def __init__(self) -> None:
        super().__init__("This account asks for a second factor: send mfa_code, a TOTP or a recovery code")


class WrongMfaCode(Refusal):
    """The second factor is wrong, or was used before."""

    def __init__(self) -> None:
        super().__init__("Invalid MFA code")


class MfaEnabled(Refusal):
    """The account has a second factor already."""

    def __init__(self) -> None:
        super().__init__("MFA is enabled already: disable it first")


class MfaNotEnabled(Refusal):
    """The account has no second factor."""

    def __init__(self, message: str = "MFA is not enabled") -> None:
        super().__init__(message)


class TooManyAttempts(Refusal):
    """Sign-ins failed too often; further ones are not looked at for a while."""

    def __init__(self, *, wait_ms: int) -> None:
        super().__init__(f"too many failed sign-ins, wait {wait_ms} ms")
        self.wait_ms = wait_ms


class TooBusy(Refusal):
    """A queue is full. Nothing was done."""


class SessionRefused(Refusal):
    """A token or refresh token does not stand (any more). The text never says why."""

    def __init__(self) -> None:
        super().__init__("Invalid authentication token provided")


class SignInNeeded(Refusal):
    """Nobody is signed in, and somebody must be."""


class NotPermitted(Refusal):
    """The caller is known and lacks the right."""


class UnknownAccount(Refusal):
    """There is no such account in this application."""

    def __init__(self) -> None:
        super().__init__("There is no such user")


class UnknownApiKey(Refusal):
    """There is no such API key in this application."""

    def __init__(self) -> None:
        super().__init__("There is no such API key")


class UnknownNode(Refusal):
    """No node of the network, or more than one, is meant."""


class WrongNetwork(Refusal):
    """A ticket or code is of another network, or of this one where it must not be."""


class JoinRefused(Refusal):
    """This node cannot join that network, or not now. The message says why and what to do."""


class HoldsData(Refusal):
    """This node holds data of its own network, and nobody has said what is to become of it."""

    def __init__(self) -> None:
        super().__init__(
            "This node holds data: --bring issues it again in the network it joins, --discard leaves it behind; "
            "either way what was here is moved aside first"
        )


class UnknownData(Refusal):
    """Nothing is stored under this key."""

    def __init__(self) -> None:
        super().__init__("Nothing is stored under this key")


class ChangedMeanwhile(Refusal):
    """Somebody else changed the same document at the same time, again and again."""

    def __init__(self) -> None:
        super().__init__("The account was changed by someone else at the same time, try again")


class BaseUnknown(Refusal):
    """An edit was made on a state of the document that is not to be had any more."""


class PluginRefused(Refusal):
    """Validators or triggers of plugins refuse a change: what each says, by its name."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(faults.values())))
        self.faults = dict(faults)


class PluginFailed(Refusal):
    """A function of a plugin ended with an error, which is its author's."""


class PluginUnavailable(Refusal):
    """The process of the plugins is not there, or took too long. Nothing was done."""


class UnknownWebhook(Refusal):
    """There is no such webhook here, or none that this caller may know of."""

    def __init__(self) -> None:
        super().__init__("There is no such webhook on this node")


class UnknownDelivery(Refusal):
    """The webhook has no such delivery, or has it no more."""

    def __init__(self) -> None:
        super().__init__("There is no such delivery, or it is no longer kept")


class WebhookDisabled(Refusal):
    """Nothing is sent for it before somebody enables it."""

    def __init__(self) -> None:
        super().__init__('The webhook is disabled: enable it first, with {"enabled": true}')


class TooManyWebhooks(Refusal):
    """A user, or the node, has as many webhooks as it may."""

    def __init__(self, of_user_max: int, of_node_max: int) -> None:
        super().__init__(f"A user may have {of_user_max} webhooks, a node {of_node_max}: delete one first")


class KeyLocked(Refusal):
    """The user's key is not in this node's memory: they have to sign in here."""

    def __init__(self) -> None:
        super().__init__("Encrypted fields are written where their user is signed in: sign in at this node")


class WrongRecoveryCode(Refusal):
    """The code does not open the account's key, or there is none."""

    def __init__(self) -> None:
        super().__init__("Invalid e-mail address or recovery code")


class KeyReused(Refusal):
    """An `Idempotency-Key` came again, with another request."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request")


class KeyInUse(Refusal):
    """An `Idempotency-Key` came again before its first request was answered."""

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is under way")
