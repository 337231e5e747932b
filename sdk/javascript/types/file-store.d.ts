/** @typedef {import('./memory-store.js').Store} Store */
/** @implements {Store} */
export class FileStore extends MemoryStore implements Store {
    /** @param {string} path */
    constructor(path: string);
    _path: string;
    _lines: number;
    /** @type {FileHandle | undefined} */
    _journal: FileHandle | undefined;
    /** @type {Promise<any>} */
    _turn: Promise<any>;
    /** @type {NodeJS.Timeout | undefined} */
    _beat: NodeJS.Timeout | undefined;
    get _lockPath(): string;
    _lock(): Promise<void>;
    /** Whether the lock is of a process that lives. A number that another process got since is told by its silence. */
    _isHeld(): Promise<boolean>;
    _load(): Promise<void>;
    _size(): number;
    /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
    _inTurn<T>(work: () => Promise<T>): Promise<T>;
    /** @param {Change[]} changes */
    _record(changes: Change[]): Promise<void>;
    _compact(): Promise<void>;
}
export type Change = import("./memory-store.js").Change;
export type FileHandle = import("node:fs/promises").FileHandle;
export type Store = import("./memory-store.js").Store;
import { MemoryStore } from './memory-store.js';
