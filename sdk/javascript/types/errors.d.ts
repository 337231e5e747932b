/**
 * The error that an answer stands for; `retryAfter` is the header.
 *
 * @param {number} status
 * @param {any} body
 * @param {string | null} [retryAfter]
 * @returns {CosmicSyncError}
 */
export function errorOf(status: number, body: any, retryAfter?: string | null): CosmicSyncError;
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
    constructor(message: string, told?: {
        errorCode?: string;
        status?: number;
        details?: Record<string, string>;
        retryAfter?: number;
        body?: Record<string, any>;
        cause?: unknown;
    });
    /** @type {string} */
    errorCode: string;
    status: number | undefined;
    details: Record<string, string>;
    retryAfter: number | undefined;
    body: Record<string, any>;
}
/** No node answers at the address. Whether a request that was cut off has counted is not known. */
export class NodeUnreachable extends CosmicSyncError {
    static errorCode: string;
}
/** The client was closed before it was done. Whether a request that was cut off has counted is not known. */
export class Closed extends CosmicSyncError {
    static errorCode: string;
    constructor(message?: string);
}
/** Another process has the same store open. */
export class StoreInUse extends CosmicSyncError {
    static errorCode: string;
}
/** What was asked for cannot be said to a node in this way. */
export class NotOffered extends CosmicSyncError {
    static errorCode: string;
}
/** The node did not accept the content: `details` names each fault by its field. */
export class BadRequest extends CosmicSyncError {
    static errorCode: string;
}
/** Nobody is signed in, or the token counts no more. */
export class Unauthorized extends CosmicSyncError {
    static errorCode: string;
}
/** The password is right; a one-time code is needed beside it. */
export class MfaRequired extends Unauthorized {
}
/** The user is known and may not do this. */
export class Forbidden extends CosmicSyncError {
    static errorCode: string;
}
/** There is no such thing, or none that the user may know of. */
export class NotFound extends CosmicSyncError {
    static errorCode: string;
}
/** The request contradicts what is stored. */
export class Conflict extends CosmicSyncError {
    static errorCode: string;
}
/** The stored version is another one than the request was made on. */
export class PreconditionFailed extends Conflict {
}
/** Too many requests; `retryAfter` says how many seconds to wait. */
export class RateLimited extends CosmicSyncError {
    static errorCode: string;
}
/** The node could not do it, for reasons of its own. */
export class ServerFault extends CosmicSyncError {
    static errorCode: string;
}
