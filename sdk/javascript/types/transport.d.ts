/**
 * The tokens in the answer to a sign-in; one without a refresh token leaves the old one in place.
 *
 * @param {any} body
 * @param {string} [refreshToken]
 * @returns {Tokens}
 */
export function tokensOf(body: any, refreshToken?: string): Tokens;
/** @param {number} ms @returns {Promise<void>} */
export function sleep(ms: number): Promise<void>;
/** One node, as one user. */
export class Transport {
    /**
     * @param {{url: string, token?: string, application?: string, timeoutMs?: number, rateLimitWaitMaxMs?: number,
     *   onTokens?: (tokens: Tokens | undefined) => void, fetch?: typeof fetch}} options
     */
    constructor(options: {
        url: string;
        token?: string;
        application?: string;
        timeoutMs?: number;
        rateLimitWaitMaxMs?: number;
        onTokens?: (tokens: Tokens | undefined) => void;
        fetch?: typeof fetch;
    });
    url: string;
    /** @type {Tokens | undefined} */
    tokens: Tokens | undefined;
    /** @type {RateLimit | undefined} */
    rateLimit: RateLimit | undefined;
    application: string | undefined;
    _timeoutMs: number;
    _rateLimitWaitMaxMs: number;
    _onTokens: ((tokens: Tokens | undefined) => void) | undefined;
    /** @type {typeof fetch} */
    _fetch: typeof fetch;
    /** @type {Promise<boolean> | undefined} */
    _refreshing: Promise<boolean> | undefined;
    isClosed: boolean;
    /** @type {Set<() => void>} */
    _ends: Set<() => void>;
    /** From now on nothing is sent; who waits for an answer gets `Closed`. */
    close(): void;
    /**
     * What a piece of work gives, if it is done before the client is closed; it is not begun afterwards.
     *
     * @template T @param {() => Promise<T>} work @param {() => void} [onClosed] ends the work
     * @returns {Promise<T>}
     * @throws {Closed}
     */
    unlessClosed<T>(work: () => Promise<T>, onClosed?: () => void): Promise<T>;
    /** From now on, requests are made with these. @param {Tokens | undefined} tokens */
    takeTokens(tokens: Tokens | undefined): void;
    /** Whether the token is of a sign-in, which says itself in which application it counts. */
    get isUser(): boolean;
    /** Whom the token names; "" for nobody, and for a token that does not say. @returns {string} */
    get user(): string;
    /** Get a new token; many who ask at once share one request. Whether there is one now. @returns {Promise<boolean>} */
    refresh(): Promise<boolean>;
    _refresh(): Promise<boolean>;
    /**
     * The answer to a request.
     *
     * @param {string} method
     * @param {string} path
     * @param {any} [body]
     * @param {RequestOptions} [options]
     * @returns {Promise<Answer>}
     * @throws {CosmicSyncError} `NodeUnreachable`, or what the node refuses it with
     */
    ask(method: string, path: string, body?: any, options?: RequestOptions): Promise<Answer>;
    _isStale(): boolean;
    /**
     * @param {string} method
     * @param {string} path
     * @param {any} body
     * @param {Record<string, string>} headers
     * @param {Record<string, string | undefined>} [query]
     * @returns {Promise<Answer>}
     */
    _once(method: string, path: string, body: any, headers: Record<string, string>, query?: Record<string, string | undefined>): Promise<Answer>;
    /** @param {Headers} headers */
    _noteRate(headers: Headers): void;
}
/**
 * `expiresAt` is epoch milliseconds
 */
export type Tokens = {
    token: string;
    refreshToken?: string;
    expiresAt?: number;
};
/**
 * `reset` is epoch seconds
 */
export type RateLimit = {
    limit: number;
    remaining: number;
    reset: number;
};
export type Answer = {
    status: number;
    headers: Headers;
    body: any;
    version?: string;
};
export type RequestOptions = {
    query?: Record<string, string | undefined> | undefined;
    headers?: Record<string, string> | undefined;
    /**
     * the idempotency key; every POST has one
     */
    key?: string | undefined;
    /**
     * whether it is asked as the signed-in user; true without it
     */
    signed?: boolean | undefined;
    /**
     * whether it may be sent again when its answer was lost
     */
    isRepeatable?: boolean | undefined;
};
