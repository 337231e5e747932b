/** @param {string} model @param {string} [id] */
export function pathOf(model: string, id?: string): string;
/** One node's data, as the signed-in user may see it. */
export class Data {
    /**
     * @param {import('./transport.js').Transport} transport
     * @param {import('./hooks.js').Hooks} hooks
     * @param {() => any} client
     */
    constructor(transport: import("./transport.js").Transport, hooks: import("./hooks.js").Hooks, client: () => any);
    _transport: import("./transport.js").Transport;
    _hooks: import("./hooks.js").Hooks;
    _client: () => any;
    /** @type {Map<string, {until: number, shape: ModelShape}>} */
    _shapes: Map<string, {
        until: number;
        shape: ModelShape;
    }>;
    /** @type {Map<string, Promise<any>>} */
    _defining: Map<string, Promise<any>>;
    /** Define a model, or let it grow. @param {string} name @param {Record<string, any>} definition @returns {Promise<Record<string, any>>} */
    defineModel(name: string, definition: Record<string, any>): Promise<Record<string, any>>;
    /** @param {string} name @param {Record<string, any>} definition */
    _define(name: string, definition: Record<string, any>): Promise<any>;
    /** The types of a model's fields, asked for once a minute at most. @param {string} model */
    shape(model: string): Promise<ModelShape>;
    /**
     * @param {string} model @param {Document} given @param {WriteOptions} [options]
     * @returns {Promise<Created>} a repetition after a lost answer makes no second one
     */
    create(model: string, given: Document, options?: WriteOptions): Promise<Created>;
    /** @param {string} model @param {string} id @returns {Promise<any>} */
    get(model: string, id: string): Promise<any>;
    /**
     * @param {string} model @param {string} id @param {Document} given @param {WriteOptions} [options]
     * @returns {Promise<{id: string, version?: string, message: string, heldByPeers?: number}>}
     */
    update(model: string, id: string, given: Document, options?: WriteOptions): Promise<{
        id: string;
        version?: string;
        message: string;
        heldByPeers?: number;
    }>;
    /** @param {string} model @param {string} id @param {Document} changes */
    _updating(model: string, id: string, changes: Document): Promise<import("./hooks.js").Context>;
    /** @param {string} model @param {string} id @param {WriteOptions} [options] */
    delete(model: string, id: string, options?: WriteOptions): Promise<void>;
    /**
     * @param {import('./hooks.js').Doing} action @param {string} model @param {string | undefined} instanceId
     * @param {Document} changes @param {Document} [previous]
     * @returns {Context}
     */
    _context(action: import("./hooks.js").Doing, model: string, instanceId: string | undefined, changes: Document, previous?: Document): Context;
    /**
     * @param {string} model
     * @param {import('./filters.js').Filter | string | null} [filter] MongoDB's, or a text in the node's own language
     * @param {QueryOptions} [options]
     * @returns {Promise<any[]>}
     */
    query(model: string, filter?: import("./filters.js").Filter | string | null, { skip, limit, sort, projection }?: QueryOptions): Promise<any[]>;
    /** @param {string} model @param {Record<string, string>} query @param {(item: Document) => boolean} isMet @param {number} enough */
    _judged(model: string, query: Record<string, string>, isMet: (item: Document) => boolean, enough: number): Promise<import("./documents.js").Document[]>;
    /** So many from so far on: one page where it can be one, else the pages that follow. @param {string} model @param {Record<string, string>} query @param {number} skip @param {number} [limit] */
    _window(model: string, query: Record<string, string>, skip: number, limit?: number): Promise<import("./documents.js").Document[]>;
    /** @param {string} model @param {Record<string, string | undefined>} query @returns {Promise<{items: Document[], next_cursor: string | null}>} */
    _page(model: string, query: Record<string, string | undefined>): Promise<{
        items: Document[];
        next_cursor: string | null;
    }>;
    /** @param {string} model @param {Record<string, any>} aggregation @returns {Promise<Record<string, any>[]>} */
    aggregate(model: string, aggregation: Record<string, any>): Promise<Record<string, any>[]>;
    /** A query method of a plugin. @param {string} model @param {string} name @param {Record<string, any>} parameters @returns {Promise<any>} */
    namedQuery(model: string, name: string, parameters: Record<string, any>): Promise<any>;
    /** @param {string} model @param {string} id @param {string} name @param {Record<string, any>} [parameters] @returns {Promise<any>} */
    callMethod(model: string, id: string, name: string, parameters?: Record<string, any>): Promise<any>;
    /** @param {string} query @param {Record<string, any>} [variables] @returns {Promise<any>} */
    graphql(query: string, variables?: Record<string, any>): Promise<any>;
    /** @param {Operation[]} operations @param {{atomic?: boolean, versions?: boolean, key?: string}} [options] @returns {Promise<{status: number, body: any, version?: string}[]>} */
    batch(operations: Operation[], { atomic, versions, key }?: {
        atomic?: boolean;
        versions?: boolean;
        key?: string;
    }): Promise<{
        status: number;
        body: any;
        version?: string;
    }[]>;
    /** @param {Update[]} updates @returns {Promise<{status: number, body: any, version?: string}[]>} */
    batchUpdate(updates: Update[]): Promise<{
        status: number;
        body: any;
        version?: string;
    }[]>;
}
export type Document = import("./documents.js").Document;
export type Context = import("./hooks.js").Context;
/**
 * `heldByPeers` where it was waited for
 */
export type Created = {
    id: string;
    instance_id: string;
    version?: string;
    message: string;
    heldByPeers?: number;
};
export type QueryOptions = {
    skip?: number | undefined;
    /**
     * without it, all
     */
    limit?: number | undefined;
    /**
     * field to 1 or -1
     */
    sort?: Record<string, number> | undefined;
    /**
     * fields to 1 or 0
     */
    projection?: Record<string, any> | undefined;
};
export type WriteOptions = {
    /**
     * write only if this is still the version
     */
    ifMatch?: string | undefined;
    /**
     * answer when so many other devices hold it, too, or soon say that fewer do: `heldByPeers`
     */
    waitForPeers?: number | undefined;
};
export type Update = {
    modelName: string;
    instanceId: string;
    updates: Document;
};
export type Operation = {
    method: string;
    path: string;
    body?: any;
    if_match?: string;
};
import { ModelShape } from './documents.js';
