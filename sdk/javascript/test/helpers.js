/** What the tests share: the node they run against, a wait for a condition, and files of their own. */

import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CosmicSync } from 'cosmicsync';
import { FileStore } from 'cosmicsync/file-store';

export const URL_HERE = /** @type {string} */ (process.env.COSMICSYNC_URL);
export const TOKEN = /** @type {string} */ (process.env.COSMICSYNC_TOKEN);
export const MODULE = import.meta.resolve('cosmicsync');
export const FILE_STORE = import.meta.resolve('cosmicsync/file-store');

let models = 0;

/** A client of the node, as its owner. @param {Record<string, any>} [options] */
export function connect(options = {}) {
  return new CosmicSync({ url: URL_HERE, token: TOKEN, ...options });
}

/** A path that no other test uses. */
export async function freshPath() {
  return join(await mkdtemp(join(tmpdir(), 'cosmicsync-')), 'store.jsonl');
}

export async function fileStore() {
  return new FileStore(await freshPath());
}

/** A model that no other test uses. @param {any} client */
export async function defineTask(client) {
  models += 1;
  const name = `JsTask${process.pid}x${models}`;
  await client.defineModel(name, {
    fields: {
      title: { type: 'string', required: true },
      status: { type: 'enum', options: ['TODO', 'DONE'], default: 'TODO' },
      priority: 'integer',
      due: 'date',
      tags: 'set',
      more: 'json',
      body: 'text',
    },
  });
  return name;
}

/** Wait until it holds. @param {() => any} condition @param {string} what */
export async function until(condition, what) {
  const end = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${what} has not happened`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
