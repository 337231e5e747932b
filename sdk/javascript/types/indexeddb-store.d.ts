/** @typedef {import('./memory-store.js').Store} Store */
/** @implements {Store} */
export class IndexedDbStore implements Store {
    /** @param {string} [name] @param {IDBFactory} [factory] */
    constructor(name?: string, factory?: IDBFactory);
    _name: string;
    _factory: IDBFactory;
    /** @type {IDBDatabase | undefined} */
    _database: IDBDatabase | undefined;
    open(): Promise<void>;
    /** @param {IDBTransactionMode} mode */
    _begin(mode: IDBTransactionMode): IDBTransaction;
    /** @param {Table} table @param {string | number} key */
    get(table: Table, key: string | number): Promise<any>;
    /** @param {Table} table */
    all(table: Table): Promise<any[]>;
    /** @param {Change[]} changes */
    write(changes: Change[]): Promise<void>;
    /** @param {(key: number) => any} make */
    append(make: (key: number) => any): Promise<any>;
    /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
    sending<T>(work: () => Promise<T>): Promise<T>;
    close(): Promise<void>;
}
export type Table = import("./memory-store.js").Table;
export type Change = import("./memory-store.js").Change;
export type Store = import("./memory-store.js").Store;
