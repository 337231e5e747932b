/**
 * Hearing of changes as they happen: one link a subscription, kept up for as long as it is wanted.
 *
 * Room: connecting, resuming, noticing gaps. The node's cursors do the remembering: what was missed while a link was
 * down is replayed, and where that is no longer possible the node says `resync` once. A link is a WebSocket, or where
 * there is none (Node.js 20, `WebSocket: false`) server-sent events, which tell the same.
 */

import { Closed, CosmicSyncError, NodeUnreachable, Unauthorized, errorOf } from './errors.js';

/** @typedef {{type: string, model: string, instanceId: string, changes?: any, data?: any, origin?: string, conflict?: any, cursor: string, previous?: string}} RealtimeEvent */
/**
 * @typedef {object} SubscribeOptions
 * @property {('created' | 'updated' | 'deleted' | 'conflict')[]} [events] all of them without it
 * @property {string} [instanceId]
 * @property {string} [cursor] begin behind this event
 * @property {string} [durable] a name under which the store remembers how far the subscription has come
 */

const BACKOFF_MS = 200;
const BACKOFF_MAX_MS = 30_000;
const SILENCE_MAX_MS = 60_000; // of server-sent events, which the node keeps alive
const NOT_WELCOME = 4401;
/** @type {Record<string, string>} */
const TOPICS = { create: 'created', update: 'updated', delete: 'deleted', conflict: 'conflict', conflict_resolved: 'conflict' };
/** @type {Record<string, number>} */
const STATUS = { NOT_FOUND: 404, FORBIDDEN: 403, UNAUTHORIZED: 401, AUTH_INVALID_TOKEN: 401, RATE_LIMIT_EXCEEDED: 429 };

/** Messages as they come, to be taken one by one. @template T */
class Inbox {
  constructor() {
    /** @type {T[]} */
    this._waiting = [];
    this._ended = false;
    this._wake = () => {};
  }

  /** @param {T} message */
  put(message) {
    this._waiting.push(message);
    this._wake();
  }

  end() {
    this._ended = true;
    this._wake();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this._waiting.length) yield /** @type {T} */ (this._waiting.shift());
      if (this._ended) return;
      await new Promise((resolve) => {
        this._wake = () => resolve(undefined);
      });
    }
  }
}

/**
 * Changes of some models: iterate over it with `for await`, or let `run` hand them to a handler; `close` ends it.
 * `resync` says that what was missed cannot be replayed: read anew.
 */
export class Subscription {
  /**
   * @param {import('./transport.js').Transport} transport
   * @param {string[]} models
   * @param {SubscribeOptions & {onCursor?: (cursor: string) => Promise<void>, onResync?: () => Promise<void>, WebSocket?: any}} [options]
   */
  constructor(transport, models, options = {}) {
    this.cursor = options.cursor;
    this.isConnected = false;
    this._transport = transport;
    this._models = models;
    this._options = options;
    this._closing = new AbortController();
    /** @type {Promise<void> | undefined} */
    this._running = undefined;
    this._isHandling = false;
    /** @type {((error?: unknown) => void)[]} */
    this._readied = [];
  }

  /** Wait until the node has acknowledged the subscription. @returns {Promise<void>} @throws what ended it */
  ready() {
    if (this.isConnected) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this._readied.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  /** @param {unknown} [error] */
  _tellReady(error) {
    for (const tell of this._readied.splice(0)) tell(error);
  }

  /** End it. A handler that runs comes to its end; it may be what calls this, so it is not waited for. */
  async close() {
    this._closing.abort();
    if (!this._isHandling) await this._running;
    this._tellReady();
  }

  /** @param {(event: RealtimeEvent) => Promise<void>} handle @param {(error: unknown) => void} onEnd */
  run(handle, onEnd) {
    this._running = (async () => {
      try {
        for await (const event of this) {
          this._isHandling = true;
          await handle(event);
          this._isHandling = false;
        }
      } catch (error) {
        this._tellReady(error);
        if (!(error instanceof Closed)) onEnd(error);
      }
    })();
  }

  /** Events, until it is closed. Throws what a node refuses it with for good; a lost link is not told. */
  async *[Symbol.asyncIterator]() {
    for (let failures = 0; !this._closing.signal.aborted; failures = Math.min(failures + 1, 16)) {
      let waitMs;
      try {
        for await (const event of this._link()) {
          yield event;
          await this._advance(event.cursor);
        }
      } catch (error) {
        if (error instanceof Unauthorized) {
          const isThere = await this._transport.refresh().catch((fault) => fault instanceof NodeUnreachable);
          if (!isThere) throw error;
        } else if (error instanceof CosmicSyncError && error.errorCode === 'RATE_LIMIT_EXCEEDED') {
          waitMs = (error.retryAfter ?? 1) * 1000;
        } else if (!(error instanceof NodeUnreachable)) throw error;
      } finally {
        if (this.isConnected) failures = 0;
        this.isConnected = false;
      }
      await this._pause(waitMs ?? Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** failures));
    }
  }

  /** @param {number} ms */
  _pause(ms) {
    const { signal } = this._closing;
    return new Promise((resolve) => {
      if (signal.aborted) return resolve(undefined);
      const timer = setTimeout(resolve, ms);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve(undefined);
      }, { once: true });
    });
  }

  /** @param {string} cursor */
  async _advance(cursor) {
    this.cursor = cursor;
    await this._options.onCursor?.(cursor);
  }

  /** The events of one connection, until it ends. @returns {AsyncGenerator<RealtimeEvent>} */
  async *_link() {
    const Socket = this._options.WebSocket ?? globalThis.WebSocket;
    const messages = Socket ? this._socket(Socket) : this._stream();
    /** @type {string | undefined} */
    let last; // the cursor sent last on this connection
    for await (const message of messages) {
      if (message.type === 'subscribed') {
        last = message.cursor;
        // One that was too old stays until `resync` has been heard, whatever becomes of the link.
        if (this.cursor === undefined) await this._advance(message.cursor);
        this.isConnected = true;
        this._tellReady();
      } else if (message.type === 'error') {
        throw errorOf(STATUS[/** @type {any} */ (message).error_code] ?? 400, message);
      } else if (message.type === 'resync') {
        last = message.cursor;
        await this._options.onResync?.(); // where that fails, the old cursor is resumed from, and it is said again
        yield message;
      } else if (Object.hasOwn(TOPICS, message.type)) {
        if (last !== undefined && message.previous !== last) return; // something is missing: it is asked for again
        last = message.cursor;
        if (this._isWanted(message)) yield message;
        else await this._advance(message.cursor);
      }
    }
  }

  /** @param {RealtimeEvent} event */
  _isWanted({ type, instanceId }) {
    const { events, instanceId: wanted } = this._options;
    return (wanted === undefined || instanceId === wanted) && (events?.includes(/** @type {any} */ (TOPICS[type])) ?? true);
  }

  /** @param {any} Socket @returns {AsyncGenerator<RealtimeEvent>} */
  async *_socket(Socket) {
    const socket = new Socket(`${this._transport.url.replace(/^http/, 'ws')}/v1/realtime`);
    /** @type {Inbox<RealtimeEvent>} */
    const inbox = new Inbox();
    let code = 1006;
    let wasOpen = false;
    const subscribe = () => {
      const { events, instanceId } = this._options;
      const asked = { type: 'subscribe', models: this._models, events, instanceId, cursor: this.cursor };
      socket.send(JSON.stringify(asked));
    };
    socket.onopen = () => {
      wasOpen = true;
      const { tokens, application, isUser } = this._transport;
      if (!tokens) return subscribe();
      const asked = { type: 'authenticate', token: tokens.token, application_id: isUser ? undefined : application };
      socket.send(JSON.stringify(asked));
    };
    socket.onmessage = (/** @type {{data: string}} */ { data }) => {
      const message = JSON.parse(data);
      if (message.type === 'authenticated') subscribe();
      else inbox.put(message);
    };
    socket.onclose = (/** @type {{code: number}} */ event) => {
      code = event.code;
      inbox.end();
    };
    socket.onerror = () => inbox.end();
    const close = () => {
      socket.close();
      inbox.end();
    };
    this._closing.signal.addEventListener('abort', close, { once: true });
    try {
      yield* inbox;
    } finally {
      this._closing.signal.removeEventListener('abort', close);
      socket.close();
    }
    // A browser does not tell why there is no socket; a request of the same origin, as unsigned, is told.
    if (!wasOpen && !this._closing.signal.aborted) await this._transport.ask('GET', '/health', undefined, { signed: false });
    if (code === NOT_WELCOME) throw new Unauthorized('The token counts no longer', { status: 401 });
  }

  /** @returns {AsyncGenerator<RealtimeEvent>} */
  async *_stream() {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MAX_MS);
    try {
      const response = await this._open(AbortSignal.any([this._closing.signal, silence.signal]));
      const decoder = new TextDecoder();
      let text = '';
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader(); // Safari iterates over no stream
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MAX_MS);
        text += decoder.decode(part.value, { stream: true });
        const blocks = text.split('\n\n');
        text = /** @type {string} */ (blocks.pop());
        for (const block of blocks) {
          const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim());
          if (data.length) yield JSON.parse(data.join('\n'));
        }
      }
    } catch (cause) {
      if (this._closing.signal.aborted) return;
      if (cause instanceof CosmicSyncError) throw cause;
      throw new NodeUnreachable(`No answer from ${this._transport.url}`, { cause });
    } finally {
      clearTimeout(timer);
      silence.abort(); // whoever stops listening leaves no request behind
    }
  }

  /** @param {AbortSignal} signal @returns {Promise<Response>} */
  async _open(signal) {
    const { url, tokens, application, _fetch } = this._transport;
    /** @type {Record<string, string>} */
    const headers = { Accept: 'text/event-stream' };
    if (tokens) headers.Authorization = `Bearer ${tokens.token}`;
    if (application !== undefined) headers['X-Application-Id'] = application;
    if (this.cursor !== undefined) headers['Last-Event-ID'] = this.cursor;
    const query = new URLSearchParams({ model: this._models.join(',') });
    const response = await _fetch(`${url}/v1/sync/changes?${query}`, { headers, signal });
    if (response.ok) return response;
    throw errorOf(response.status, await response.json().catch(() => undefined), response.headers.get('Retry-After'));
  }
}
