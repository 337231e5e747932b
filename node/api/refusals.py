"""Which reply each refusal of the account services is.

Room: one table, from `node.services.refusals` to `node.api.errors`, for `from_exception`.
"""

from node.api import errors
from node.api.errors import ApiError, ErrorTable
from node.services import refusals

LOCKED_OUT = "Too many failed sign-ins, try again later"


def _too_many_attempts(refusal: refusals.TooManyAttempts) -> ApiError:
    limited = errors.RateLimited(-(-refusal.wait_ms // 1000))
    limited.message = LOCKED_OUT
    return limited


REFUSALS: ErrorTable = {
    refusals.InvalidFields: lambda refusal: errors.ValidationFailed(refusal.faults),
    refusals.UnknownNames: lambda refusal: errors.NotFound(str(refusal), refusal.faults),
    refusals.EmailTaken: lambda refusal: errors.Conflict(str(refusal)),
    refusals.WrongCredentials: lambda refusal: ApiError(401, "AUTH_INVALID_CREDENTIALS", str(refusal)),
    refusals.WrongPassword: lambda refusal: errors.Forbidden(str(refusal)),
    refusals.MfaRequired: lambda refusal: ApiError(401, "AUTH_MFA_REQUIRED", str(refusal)),
    refusals.WrongMfaCode: lambda refusal: ApiError(401, "AUTH_INVALID_MFA_CODE", str(refusal)),
    refusals.MfaEnabled: lambda refusal: errors.Conflict(str(refusal)),
    refusals.MfaNotEnabled: lambda refusal: errors.Conflict(str(refusal)),
    refusals.TooManyAttempts: _too_many_attempts,
    refusals.TooBusy: lambda refusal: errors.RateLimited(1),
    refusals.WrongRecoveryCode: lambda refusal: ApiError(401, "AUTH_INVALID_CREDENTIALS", str(refusal)),
    refusals.KeyReused: lambda refusal: ApiError(422, "IDEMPOTENCY_KEY_REUSED", str(refusal)),
    refusals.KeyInUse: lambda refusal: errors.Conflict(str(refusal)),
    refusals.KeyLocked: lambda refusal: ApiError(401, "AUTH_KEY_LOCKED", str(refusal)),
    refusals.SessionRefused: lambda refusal: errors.InvalidToken(str(refusal)),
    refusals.SignInNeeded: lambda refusal: errors.Unauthorized(),
    refusals.NotPermitted: lambda refusal: errors.Forbidden(str(refusal)),
    refusals.UnknownAccount: lambda refusal: errors.NotFound(str(refusal)),
    refusals.UnknownApiKey: lambda refusal: errors.NotFound(str(refusal)),
    refusals.UnknownData: lambda refusal: errors.NotFound(str(refusal)),
    refusals.BaseUnknown: lambda refusal: errors.Conflict(str(refusal)),
    refusals.UnknownNode: lambda refusal: errors.NotFound(str(refusal)),
    refusals.WrongNetwork: lambda refusal: errors.Conflict(str(refusal)),
    refusals.JoinRefused: lambda refusal: errors.Conflict(str(refusal)),
    refusals.HoldsData: lambda refusal: errors.Conflict(str(refusal)),
    refusals.PluginRefused: lambda refusal: errors.BadRequest(str(refusal), refusal.faults),
    refusals.PluginFailed: lambda refusal: ApiError(500, "PLUGIN_FAILED", str(refusal)),
    refusals.PluginUnavailable: lambda refusal: errors.Unavailable(str(refusal)),
    refusals.UnknownWebhook: lambda refusal: errors.NotFound(str(refusal)),
    refusals.UnknownDelivery: lambda refusal: errors.NotFound(str(refusal)),
    refusals.WebhookDisabled: lambda refusal: errors.Conflict(str(refusal)),
    refusals.TooManyWebhooks: lambda refusal: errors.Conflict(str(refusal)),
    refusals.ChangedMeanwhile: lambda refusal: errors.Conflict(str(refusal)),
}
