/** What there is to decide, for one client. */
export class Conflicts {
    /** @param {import('./transport.js').Transport} transport @param {import('./hooks.js').Hooks} hooks */
    constructor(transport: import("./transport.js").Transport, hooks: import("./hooks.js").Hooks);
    _transport: import("./transport.js").Transport;
    _hooks: import("./hooks.js").Hooks;
    /** @type {Map<string, Document | undefined>} */
    _ancestors: Map<string, Document | undefined>;
    /**
     * A queued action meets another version. What to send instead; an action with a `conflict` waits; undefined: what
     * it wants is there already.
     *
     * @param {Action} action
     * @param {Document} remote
     * @returns {Promise<Action | undefined>}
     */
    meet(action: Action, remote: Document): Promise<Action | undefined>;
    /**
     * What the resolver of a model decides; undefined if it has none, or leaves it open.
     *
     * @param {string} model @param {Document} local @param {Document} remote @param {Document} [ancestor]
     * @returns {Promise<Document | undefined>}
     */
    _decide(model: string, local: Document, remote: Document, ancestor?: Document): Promise<Document | undefined>;
    /**
     * The action after a decision on its conflict; undefined if nothing is left to send.
     *
     * @param {Action} action
     * @param {any} resolution an instance, some of its fields, or the word `local` or `remote`
     * @returns {Action | undefined}
     */
    decided(action: Action, resolution: any): Action | undefined;
    /**
     * Ask resolvers about the node's open conflicts.
     *
     * @param {ConflictTold[]} listed
     * @returns {Promise<ConflictTold[]>} those that stay open, of `listed` and of the models with resolvers
     */
    settleOpen(listed: ConflictTold[]): Promise<ConflictTold[]>;
    /** Whether a resolver has ended it. @param {ConflictTold} conflict */
    _settled(conflict: ConflictTold): Promise<boolean>;
    /**
     * End a conflict of the node with an instance, with `{field: value}`, or with the value itself.
     *
     * @param {string} id
     * @param {any} resolution
     */
    resolve(id: string, resolution: any): Promise<any>;
    /** @param {string} id @param {Document} resolution */
    _end(id: string, resolution: Document): Promise<any>;
    /** What two versions of an instance came from: that of the conflict being resolved, or the node's. @param {string} id */
    ancestor(id: string): Promise<any>;
}
export type Document = import("./documents.js").Document;
export type Action = import("./offline.js").Action;
export type ConflictTold = Record<string, any> & {
    id: string;
    model: string;
    instance_id: string;
    field: string;
};
