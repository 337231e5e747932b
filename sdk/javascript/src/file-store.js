/**
 * What this device keeps, in one file: a journal of changes, for Node.js.
 *
 * Room: durability. Each change is one line, flushed to disk before its promise resolves; a line that a crash has
 * torn was never acknowledged and is cut off. When most of the journal is history it is written anew beside the old
 * one, which it then replaces in one step. One process has a file open at a time.
 */

import { open, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { dirname } from 'node:path';

import { StoreInUse } from './errors.js';
import { MemoryStore } from './memory-store.js';

/** @typedef {import('./memory-store.js').Change} Change */
/** @typedef {import('node:fs/promises').FileHandle} FileHandle */

const HISTORY_MAX = 1_000; // lines that say nothing any more, before the journal is written anew
const BEAT_MS = 5_000; // how often the one who has the file says that it still lives
const DEAD_AFTER_MS = 30_000;

/** @typedef {import('./memory-store.js').Store} Store */

/** @implements {Store} */
export class FileStore extends MemoryStore {
  /** @param {string} path */
  constructor(path) {
    super();
    this._path = path;
    this._lines = 0;
    /** @type {FileHandle | undefined} */
    this._journal = undefined;
    /** @type {Promise<any>} */
    this._turn = Promise.resolve();
    /** @type {NodeJS.Timeout | undefined} */
    this._beat = undefined;
  }

  /** @throws {StoreInUse} while another living process has it open */
  async open() {
    await this._lock();
    try {
      await this._load();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  get _lockPath() {
    return `${this._path}.lock`;
  }

  async _lock() {
    for (let tries = 0; ; tries += 1) {
      try {
        const lock = await open(this._lockPath, 'wx', 0o600);
        await lock.writeFile(String(process.pid));
        await lock.close();
        break;
      } catch (error) {
        if (/** @type {any} */ (error).code !== 'EEXIST') throw error;
        if (tries > 2 || (await this._isHeld())) throw new StoreInUse(`${this._path} is open in another process`);
        await rm(this._lockPath, { force: true });
      }
    }
    this._beat = setInterval(() => {
      const now = new Date();
      utimes(this._lockPath, now, now).catch(() => {});
    }, BEAT_MS);
    this._beat.unref();
  }

  /** Whether the lock is of a process that lives. A number that another process got since is told by its silence. */
  async _isHeld() {
    try {
      const { mtimeMs } = await stat(this._lockPath);
      const pid = Number(await readFile(this._lockPath, 'utf8'));
      if (pid === 0) return Date.now() - mtimeMs < 1_000; // just being written
      process.kill(pid, 0);
      return Date.now() - mtimeMs < DEAD_AFTER_MS;
    } catch (error) {
      return /** @type {any} */ (error).code === 'EPERM';
    }
  }

  async _load() {
    const content = await readFile(this._path).catch((error) => {
      if (error.code !== 'ENOENT') throw error;
      return Buffer.alloc(0);
    });
    let good = 0;
    for (let end = content.indexOf(10); end !== -1; end = content.indexOf(10, good)) {
      const line = content.toString('utf8', good, end);
      this.apply(JSON.parse(line));
      this._lines += 1;
      good = end + 1;
    }
    this._journal = await open(this._path, 'a', 0o600);
    if (good < content.length) {
      await this._journal.truncate(good);
      await this._journal.sync();
    }
    await syncDirectory(this._path);
    if (this._lines > this._size() + HISTORY_MAX) await this._compact();
  }

  _size() {
    return this.tables.action.size + this.tables.local.size + this.tables.note.size;
  }

  /** @param {Change[]} changes */
  write(changes) {
    return this._inTurn(async () => {
      await this._record(changes);
    });
  }

  /** @param {(key: number) => any} make */
  append(make) {
    return this._inTurn(async () => {
      const key = this.nextPlace;
      const value = make(key);
      await this._record([{ table: 'action', key, value }]);
      return value;
    });
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  _inTurn(work) {
    const done = this._turn.then(work);
    this._turn = done.catch(() => {});
    return done;
  }

  /** @param {Change[]} changes */
  async _record(changes) {
    if (!this._journal) throw new Error('The store is not open');
    await this._journal.appendFile(`${JSON.stringify(changes)}\n`);
    await this._journal.datasync();
    this.apply(changes);
    this._lines += 1;
    if (this._lines > this._size() + HISTORY_MAX) await this._compact();
  }

  async _compact() {
    /** @type {Change[]} */
    const changes = [];
    for (const table of /** @type {import('./memory-store.js').Table[]} */ (['action', 'local', 'note'])) {
      for (const [key, value] of this.tables[table]) changes.push({ table, key, value });
    }
    // Places are never given twice, so the highest one is kept though nothing is there.
    changes.push({ table: 'action', key: this.nextPlace - 1, value: this.tables.action.get(this.nextPlace - 1) });
    const fresh = `${this._path}.new`;
    const file = await open(fresh, 'w', 0o600);
    await file.appendFile(changes.map((change) => `${JSON.stringify([change])}\n`).join(''));
    await file.sync();
    await file.close();
    await rename(fresh, this._path);
    await syncDirectory(this._path);
    await this._journal?.close();
    this._journal = await open(this._path, 'a', 0o600);
    this._lines = changes.length;
  }

  async close() {
    clearInterval(this._beat);
    await this._turn;
    if (this._journal) {
      await this._journal.close();
      this._journal = undefined;
    }
    if (this._beat !== undefined) await rm(this._lockPath, { force: true });
    this._beat = undefined;
  }
}

/** A new name is on disk once its directory is. @param {string} path */
async function syncDirectory(path) {
  if (process.platform === 'win32') return;
  const directory = await open(dirname(path), 'r');
  await directory.sync().finally(() => directory.close());
}
