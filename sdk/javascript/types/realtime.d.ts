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
    constructor(transport: import("./transport.js").Transport, models: string[], options?: SubscribeOptions & {
        onCursor?: (cursor: string) => Promise<void>;
        onResync?: () => Promise<void>;
        WebSocket?: any;
    });
    cursor: string | undefined;
    isConnected: boolean;
    _transport: import("./transport.js").Transport;
    _models: string[];
    _options: SubscribeOptions & {
        onCursor?: (cursor: string) => Promise<void>;
        onResync?: () => Promise<void>;
        WebSocket?: any;
    };
    _closing: AbortController;
    /** @type {Promise<void> | undefined} */
    _running: Promise<void> | undefined;
    _isHandling: boolean;
    /** @type {((error?: unknown) => void)[]} */
    _readied: ((error?: unknown) => void)[];
    /** Wait until the node has acknowledged the subscription. @returns {Promise<void>} @throws what ended it */
    ready(): Promise<void>;
    /** @param {unknown} [error] */
    _tellReady(error?: unknown): void;
    /** End it. A handler that runs comes to its end; it may be what calls this, so it is not waited for. */
    close(): Promise<void>;
    /** @param {(event: RealtimeEvent) => Promise<void>} handle @param {(error: unknown) => void} onEnd */
    run(handle: (event: RealtimeEvent) => Promise<void>, onEnd: (error: unknown) => void): void;
    /** @param {number} ms */
    _pause(ms: number): Promise<any>;
    /** @param {string} cursor */
    _advance(cursor: string): Promise<void>;
    /** The events of one connection, until it ends. @returns {AsyncGenerator<RealtimeEvent>} */
    _link(): AsyncGenerator<RealtimeEvent>;
    /** @param {RealtimeEvent} event */
    _isWanted({ type, instanceId }: RealtimeEvent): boolean;
    /** @param {any} Socket @returns {AsyncGenerator<RealtimeEvent>} */
    _socket(Socket: any): AsyncGenerator<RealtimeEvent>;
    /** @returns {AsyncGenerator<RealtimeEvent>} */
    _stream(): AsyncGenerator<RealtimeEvent>;
    /** @param {AbortSignal} signal @returns {Promise<Response>} */
    _open(signal: AbortSignal): Promise<Response>;
    /** Events, until it is closed. Throws what a node refuses it with for good; a lost link is not told. */
    [Symbol.asyncIterator](): AsyncGenerator<RealtimeEvent, void, unknown>;
}
export type RealtimeEvent = {
    type: string;
    model: string;
    instanceId: string;
    changes?: any;
    data?: any;
    origin?: string;
    conflict?: any;
    cursor: string;
    previous?: string;
};
export type SubscribeOptions = {
    /**
     * all of them without it
     */
    events?: ("conflict" | "created" | "updated" | "deleted")[] | undefined;
    instanceId?: string | undefined;
    /**
     * begin behind this event
     */
    cursor?: string | undefined;
    /**
     * a name under which the store remembers how far the subscription has come
     */
    durable?: string | undefined;
};
