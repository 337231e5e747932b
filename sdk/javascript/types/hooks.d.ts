/** All of one client. `onError` hears what fails when it is too late to prevent anything. */
export class Hooks {
    /** @param {(error: unknown) => void} onError */
    constructor(onError: (error: unknown) => void);
    onError: (error: unknown) => void;
    /** @type {Map<string, Map<string, Function>>} */
    queries: Map<string, Map<string, Function>>;
    /** @type {Map<string, Resolver>} */
    resolvers: Map<string, Resolver>;
    /** @type {Map<string, Hook[]>} */
    _validators: Map<string, Hook[]>;
    /** @type {Map<string, Hook[]>} */
    _triggers: Map<string, Hook[]>;
    /** @type {Map<string, object>} */
    _prototypes: Map<string, object>;
    /** @param {string} model @param {Hook} validate */
    addValidator(model: string, validate: Hook): void;
    /** @param {string} model @param {string} event @param {Hook} handler @throws {RangeError} for an event that never comes */
    addTrigger(model: string, event: string, handler: Hook): void;
    /** @param {string} model @param {string} name @param {Function} query */
    addQuery(model: string, name: string, query: Function): void;
    /** @param {string} model @param {object} methods methods and accessors */
    extend(model: string, methods: object): void;
    /** An instance with the methods of its model. @param {string} model @param {Document} content @param {Document} [hidden] */
    document(model: string, content: Document, hidden?: Document): import("./documents.js").Document;
    /** Whether some hook looks at the whole instance before it is written. @param {string} model @param {Doing} action */
    needsPrevious(model: string, action: Doing): boolean;
    /** @param {string} model @param {Doing} action */
    hasAfter(model: string, action: Doing): boolean;
    /**
     * What is to be written in place of the changes. Throws what a validator or a trigger throws.
     * A `before…` trigger may change the data that it is given; what it changes is written.
     *
     * @param {Context} context
     * @returns {Promise<Document>}
     */
    before(context: Context): Promise<Document>;
    /** The write is stored; what a trigger throws now changes nothing about that. @param {Context} context @param {Document} content */
    after(context: Context, content: Document): Promise<void>;
}
export type Document = import("./documents.js").Document;
export type Doing = "create" | "update" | "delete";
/**
 * what a hook is told beside the data
 */
export type Context = {
    action: Doing;
    model: string;
    instanceId?: string | undefined;
    /**
     * what was given
     */
    changes: Document;
    previous?: import("./documents.js").Document | undefined;
    /**
     * the client
     */
    cosmicSync: any;
};
export type Hook = (data: Document, context: Context) => any;
/**
 * gives an instance, or nothing to leave it open
 */
export type Resolver = (local: any, remote: any, ancestor?: any) => any;
