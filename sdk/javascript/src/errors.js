/**
 * What can go wrong, as one family of errors.
 *
 * Room: the errors and which answer of a node becomes which of them. All are `CosmicSyncError`s and carry what
 * programs decide by: `errorCode`, `details` (field to fault), `retryAfter` (seconds), `status`.
 */

/** Something was not done. `status` is the HTTP status, undefined where no node has answered. */
export class CosmicSyncError extends Error {
  /**
   * @param {string} message
   * @param {{errorCode?: string, status?: number, details?: Record<string, string>, retryAfter?: number,
   *   body?: Record<string, any>, cause?: unknown}} [told]
   */
  constructor(message, told = {}) {
    super(message, told.cause === undefined ? undefined : { cause: told.cause });
    this.name = new.target.name;
    /** @type {string} */
    this.errorCode = told.errorCode ?? /** @type {any} */ (new.target).errorCode ?? 'ERROR';
    this.status = told.status;
    this.details = told.details ?? {};
    this.retryAfter = told.retryAfter;
    this.body = told.body ?? {};
  }
}

/** No node answers at the address. Whether a request that was cut off has counted is not known. */
export class NodeUnreachable extends CosmicSyncError {
  static errorCode = 'NODE_UNREACHABLE';
}

/** The client was closed before it was done. Whether a request that was cut off has counted is not known. */
export class Closed extends CosmicSyncError {
  static errorCode = 'CLOSED';

  constructor(message = 'The client was closed') {
    super(message);
  }
}

/** Another process has the same store open. */
export class StoreInUse extends CosmicSyncError {
  static errorCode = 'STORE_IN_USE';
}

/** What was asked for cannot be said to a node in this way. */
export class NotOffered extends CosmicSyncError {
  static errorCode = 'NOT_OFFERED';
}

/** The node did not accept the content: `details` names each fault by its field. */
export class BadRequest extends CosmicSyncError {
  static errorCode = 'BAD_REQUEST';
}

/** Nobody is signed in, or the token counts no more. */
export class Unauthorized extends CosmicSyncError {
  static errorCode = 'UNAUTHORIZED';
}

/** The password is right; a one-time code is needed beside it. */
export class MfaRequired extends Unauthorized {
  static errorCode = 'AUTH_MFA_REQUIRED';
}

/** The user is known and may not do this. */
export class Forbidden extends CosmicSyncError {
  static errorCode = 'FORBIDDEN';
}

/** There is no such thing, or none that the user may know of. */
export class NotFound extends CosmicSyncError {
  static errorCode = 'NOT_FOUND';
}

/** The request contradicts what is stored. */
export class Conflict extends CosmicSyncError {
  static errorCode = 'CONFLICT';
}

/** The stored version is another one than the request was made on. */
export class PreconditionFailed extends Conflict {
  static errorCode = 'PRECONDITION_FAILED';
}

/** Too many requests; `retryAfter` says how many seconds to wait. */
export class RateLimited extends CosmicSyncError {
  static errorCode = 'RATE_LIMIT_EXCEEDED';
}

/** The node could not do it, for reasons of its own. */
export class ServerFault extends CosmicSyncError {
  static errorCode = 'INTERNAL_SERVER_ERROR';
}

/** @type {Record<number, typeof CosmicSyncError>} */
const BY_STATUS = {
  400: BadRequest,
  401: Unauthorized,
  403: Forbidden,
  404: NotFound,
  409: Conflict,
  412: PreconditionFailed,
  413: BadRequest,
  415: BadRequest,
  422: BadRequest,
  429: RateLimited,
};

/**
 * The error that an answer stands for; `retryAfter` is the header.
 *
 * @param {number} status
 * @param {any} body
 * @param {string | null} [retryAfter]
 * @returns {CosmicSyncError}
 */
export function errorOf(status, body, retryAfter) {
  const content = body !== null && typeof body === 'object' ? body : {};
  const code = typeof content.error_code === 'string' ? content.error_code : undefined;
  const Kind =
    code === MfaRequired.errorCode
      ? MfaRequired
      : (BY_STATUS[status] ?? (status >= 500 ? ServerFault : CosmicSyncError));
  const wait = Number(content.retry_after ?? retryAfter ?? NaN);
  return new Kind(String(content.error ?? `The node answered ${status}`), {
    errorCode: code,
    status,
    details: content.details ?? {},
    retryAfter: Number.isFinite(wait) ? Math.max(0, wait) : undefined,
    body: content,
  });
}
