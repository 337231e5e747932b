/**
 * Requests to a node: tokens, repetition, rates.
 *
 * Room: one request becomes one answer or one error of the family. What is repeated here is safe to repeat: reads,
 * whole values, and whatever carries an idempotency key. Nothing here knows what a path means.
 */

import { newKey, toJson } from './documents.js';
import { Closed, CosmicSyncError, NodeUnreachable, RateLimited, errorOf } from './errors.js';

/** @typedef {{token: string, refreshToken?: string, expiresAt?: number}} Tokens `expiresAt` is epoch milliseconds */
/** @typedef {{limit: number, remaining: number, reset: number}} RateLimit `reset` is epoch seconds */
/** @typedef {{status: number, headers: Headers, body: any, version?: string}} Answer */
/**
 * @typedef {object} RequestOptions
 * @property {Record<string, string | undefined>} [query]
 * @property {Record<string, string>} [headers]
 * @property {string} [key] the idempotency key; every POST has one
 * @property {boolean} [signed] whether it is asked as the signed-in user; true without it
 * @property {boolean} [isRepeatable] whether it may be sent again when its answer was lost
 */

const TRIES = 3;
const BACKOFF_MS = 100; // before the second try; doubled each time, and scattered
const REFRESH_BEFORE_MS = 30_000;

/** One node, as one user. */
export class Transport {
  /**
   * @param {{url: string, token?: string, application?: string, timeoutMs?: number, rateLimitWaitMaxMs?: number,
   *   onTokens?: (tokens: Tokens | undefined) => void, fetch?: typeof fetch}} options
   */
  constructor(options) {
    this.url = options.url.replace(/\/+$/, '');
    /** @type {Tokens | undefined} */
    this.tokens = options.token === undefined ? undefined : { token: options.token };
    /** @type {RateLimit | undefined} */
    this.rateLimit = undefined;
    this.application = options.application;
    this._timeoutMs = options.timeoutMs ?? 30_000;
    this._rateLimitWaitMaxMs = options.rateLimitWaitMaxMs ?? 5_000;
    this._onTokens = options.onTokens;
    /** @type {typeof fetch} */
    this._fetch = (...asked) => (options.fetch ?? globalThis.fetch)(...asked); // as no method: browsers refuse that
    /** @type {Promise<boolean> | undefined} */
    this._refreshing = undefined;
    this.isClosed = false;
    /** @type {Set<() => void>} */
    this._ends = new Set();
  }

  /** From now on nothing is sent; who waits for an answer gets `Closed`. */
  close() {
    this.isClosed = true;
    for (const end of this._ends) end();
  }

  /**
   * What a piece of work gives, if it is done before the client is closed; it is not begun afterwards.
   *
   * @template T @param {() => Promise<T>} work @param {() => void} [onClosed] ends the work
   * @returns {Promise<T>}
   * @throws {Closed}
   */
  async unlessClosed(work, onClosed = () => {}) {
    if (this.isClosed) throw new Closed();
    /** @type {() => void} */
    let end = () => {};
    /** @type {Promise<never>} */
    const closed = new Promise((_, reject) => {
      end = () => {
        reject(new Closed());
        onClosed();
      };
    });
    this._ends.add(end);
    try {
      return await Promise.race([closed, work()]);
    } finally {
      this._ends.delete(end);
    }
  }

  /** From now on, requests are made with these. @param {Tokens | undefined} tokens */
  takeTokens(tokens) {
    this.tokens = tokens;
    this._onTokens?.(tokens);
  }

  /** Whether the token is of a sign-in, which says itself in which application it counts. */
  get isUser() {
    return this.tokens?.token.split('.').length === 3;
  }

  /** Whom the token names; "" for nobody, and for a token that does not say. @returns {string} */
  get user() {
    const [, claims, signature] = (this.tokens?.token ?? '').split('.');
    if (!signature) return '';
    try {
      return String(JSON.parse(atob(claims.replaceAll('-', '+').replaceAll('_', '/'))).sub ?? '');
    } catch {
      return '';
    }
  }

  /** Get a new token; many who ask at once share one request. Whether there is one now. @returns {Promise<boolean>} */
  refresh() {
    this._refreshing ??= this._refresh().finally(() => {
      this._refreshing = undefined;
    });
    return this._refreshing;
  }

  async _refresh() {
    const old = this.tokens;
    if (old === undefined || !this.isUser) return false;
    const [body, headers] = old.refreshToken
      ? [{ refresh_token: old.refreshToken }, {}]
      : [undefined, { Authorization: `Bearer ${old.token}` }];
    try {
      const answer = await this._once('POST', '/v1/auth/refresh', body, headers);
      this.takeTokens(tokensOf(answer.body, old.refreshToken));
      return true;
    } catch (error) {
      if (error instanceof NodeUnreachable || error instanceof Closed || !(error instanceof CosmicSyncError)) throw error;
      return false;
    }
  }

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
  async ask(method, path, body, options = {}) {
    const headers = { ...options.headers };
    const signed = options.signed ?? true;
    if (method === 'POST') headers['Idempotency-Key'] = options.key ?? newKey();
    const isRepeatable =
      options.isRepeatable ?? (['GET', 'PUT', 'DELETE'].includes(method) && headers['If-Match'] === undefined);
    if (signed && this._isStale()) await this.refresh();
    let isRefreshed = false;
    for (let left = TRIES - 1; ; left -= 1) {
      if (signed && this.tokens) headers.Authorization = `Bearer ${this.tokens.token}`;
      try {
        return await this._once(method, path, body, headers, options.query);
      } catch (error) {
        if (!(error instanceof CosmicSyncError) || left === 0) throw error;
        const pauseMs = BACKOFF_MS * 2 ** (TRIES - 1 - left) * (0.5 + Math.random());
        if (error instanceof NodeUnreachable) {
          if (!isRepeatable && !wasNeverSent(error)) throw error;
          await this.unlessClosed(() => sleep(pauseMs));
        } else if (signed && error.status === 401 && error.errorCode === 'AUTH_INVALID_TOKEN') {
          // One that was sent before another request had the token renewed is only sent again.
          const isRenewed = this.tokens && headers.Authorization !== `Bearer ${this.tokens.token}`;
          if (isRefreshed || !(isRenewed || (await this.refresh()))) throw error;
          isRefreshed = true;
        } else if (error instanceof RateLimited || error.status === 503) {
          const waitMs = (error.retryAfter ?? 0) * 1000;
          if (waitMs > this._rateLimitWaitMaxMs) throw error;
          await this.unlessClosed(() => sleep(waitMs || pauseMs));
        } else throw error;
      }
    }
  }

  _isStale() {
    const { expiresAt, refreshToken } = this.tokens ?? {};
    return expiresAt !== undefined && refreshToken !== undefined && Date.now() > expiresAt - REFRESH_BEFORE_MS;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {any} body
   * @param {Record<string, string>} headers
   * @param {Record<string, string | undefined>} [query]
   * @returns {Promise<Answer>}
   */
  async _once(method, path, body, headers, query) {
    const asked = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
    const search = asked.length ? `?${new URLSearchParams(/** @type {[string, string][]} */ (asked))}` : '';
    const isForm = typeof FormData !== 'undefined' && body instanceof FormData;
    const sent = { ...headers };
    if (body !== undefined && !isForm) sent['Content-Type'] = 'application/json';
    if (this.application !== undefined) sent['X-Application-Id'] = this.application;
    const content = body === undefined || isForm ? body : toJson(body);
    const cut = new AbortController();
    const timer = setTimeout(() => cut.abort(new DOMException('The node took too long', 'TimeoutError')), this._timeoutMs);
    const exchange = async () => {
      const { signal } = cut;
      const answer = await this._fetch(this.url + path + search, { method, headers: sent, body: content, signal, redirect: 'error' });
      return { response: answer, text: await answer.text() };
    };
    const { response, text } = await this.unlessClosed(exchange, () => cut.abort())
      .catch((cause) => {
        throw cause instanceof Closed ? cause : new NodeUnreachable(`No answer from ${this.url}`, { cause });
      })
      .finally(() => clearTimeout(timer));
    this._noteRate(response.headers);
    const isJson = (response.headers.get('Content-Type') ?? '').includes('json');
    const told = !text ? undefined : isJson ? JSON.parse(text) : text;
    if (!response.ok) throw errorOf(response.status, told, response.headers.get('Retry-After'));
    const version = response.headers.get('ETag')?.replace(/^W\//, '').replaceAll('"', '');
    return { status: response.status, headers: response.headers, body: told, version };
  }

  /** @param {Headers} headers */
  _noteRate(headers) {
    const [limit, remaining, reset] = ['Limit', 'Remaining', 'Reset'].map((name) => headers.get(`X-RateLimit-${name}`));
    if (limit !== null && remaining !== null && reset !== null) {
      this.rateLimit = { limit: Number(limit), remaining: Number(remaining), reset: Number(reset) };
    }
  }
}

/**
 * The tokens in the answer to a sign-in; one without a refresh token leaves the old one in place.
 *
 * @param {any} body
 * @param {string} [refreshToken]
 * @returns {Tokens}
 */
export function tokensOf(body, refreshToken) {
  return {
    token: body.token,
    refreshToken: body.refresh_token ?? refreshToken,
    expiresAt: Date.now() + (body.expires_in ?? 3600) * 1000,
  };
}

/** Whether nobody was there to take the request. Only Node says so. @param {any} error */
function wasNeverSent(error) {
  return error.cause?.cause?.code === 'ECONNREFUSED';
}

/** @param {number} ms @returns {Promise<void>} */
export function sleep(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
