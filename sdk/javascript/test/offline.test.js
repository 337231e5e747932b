/** The queue of actions in each store: what it survives, what it shows, and how it meets a node that has moved on. */

import 'fake-indexeddb/auto';

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { BadRequest, Closed, CosmicSync, IndexedDbStore, MemoryStore, StoreInUse } from 'cosmicsync';
import { FileStore } from 'cosmicsync/file-store';

import { FILE_STORE, MODULE, TOKEN, URL_HERE, connect, defineTask, fileStore, freshPath, until } from './helpers.js';

let databases = 0;
/** A node that hears requests and never answers one. */
async function silentNode() {
  const heard = [];
  const server = createServer(({ method, url }) => heard.push(`${method} ${url.split('?')[0]}`));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, heard, close };
}

const STORES = {
  memory: async () => new MemoryStore(),
  file: fileStore,
  IndexedDB: async () => new IndexedDbStore(`test${(databases += 1)}`),
};

for (const [kind, make] of Object.entries(STORES)) {
  test(`${kind}: what is queued is shown at once, sent in order, and taken back if it is refused`, async () => {
    const client = connect({ store: await make() });
    const task = await defineTask(client);
    const heard = [];
    client.watchLocal(task, ({ reason, data }) => heard.push([reason, data && data.priority]));
    const { instanceId } = await client.queueOfflineAction({ type: 'create', modelId: task, data: { title: 'new', priority: 1 } });
    await client.queueOfflineAction({ type: 'update', modelId: task, instanceId, data: { priority: 2 } });
    assert.deepEqual({ ...(await client.getLocalData(task, instanceId)) }, { id: instanceId, title: 'new', priority: 2 });
    const result = await client.sync();
    assert.deepEqual([result.sent, result.conflicts, result.remaining], [2, [], 0]);
    assert.ok(result.syncedCount >= 2); // and what went to a peer meanwhile
    assert.equal((await client.getInstance(task, instanceId)).priority, 2);
    await client.queueOfflineAction({ type: 'update', modelId: task, instanceId, data: { priority: 'much' } });
    const second = await client.sync();
    assert.deepEqual(second.refused.map(({ error }) => error.details), [{ priority: 'Must be an integer' }]);
    assert.deepEqual(heard.slice(0, 2), [['optimistic', 1], ['optimistic', 2]]);
    assert.deepEqual(heard.slice(-2), [['optimistic', 'much'], ['reverted', 2]]);
    await client.storeLocally(task, 'brief', { title: 'x' }, { ttl: 0 });
    await client.storeLocally(task, 'copy', { title: 'copy', priority: 1 });
    await client.queueOfflineAction({ type: 'update', modelId: task, instanceId: 'copy', data: { priority: 3 } });
    const ids = async (filter, options) => (await client.queryLocal(task, filter, options)).map(({ id }) => id);
    assert.deepEqual(await ids(null, { sort: { priority: -1 } }), ['copy', instanceId]);
    assert.deepEqual(await ids({ priority: { $lt: 3 } }), [instanceId]);
    assert.deepEqual(await ids({}, { sort: { priority: 1 }, skip: 1, limit: 1 }), ['copy']);
    await client.queueOfflineAction({ type: 'delete', modelId: task, instanceId: 'copy' });
    assert.deepEqual(await ids(), [instanceId]);
    await assert.rejects(client.queryLocal(task, { $where: 1 }), BadRequest);
    assert.equal(await client.getLocalData(task, 'brief'), null);
    assert.equal(await client.clearLocalData(instanceId), 1);
    await client.close();
  });

  test(`${kind}: what waits for the node when the client is closed ends, and another client sends the queue`, async (context) => {
    const store = await make();
    const task = await defineTask(connect());
    const { url, heard, close } = await silentNode();
    context.after(close);
    const first = connect({ url, store });
    for (const title of ['t0', 't1']) await first.queueOfflineAction({ type: 'create', modelId: task, data: { title } });
    const waiting = [first.sync(), first.sync(), first.getInstance(task, 'x'), first.partialSync()].map((work) =>
      work.then(() => assert.fail('it was answered'), (error) => error),
    );
    await until(() => heard.length === 3, 'the node has heard all of them');
    await first.close();
    for (const error of await Promise.all(waiting)) {
      assert.ok(error instanceof Closed, String(error));
      assert.deepEqual([error.errorCode, error.status], ['CLOSED', undefined]);
    }
    await assert.rejects(first.sync(), Closed);
    await assert.rejects(first.createInstance(task, { title: 'late' }), Closed);
    await assert.rejects(first.queueOfflineAction({ type: 'create', modelId: task, data: { title: 'late' } }), Closed);
    assert.deepEqual([...heard].sort(), [`GET /v1/data/${task}/x`, 'GET /v1/sync/changes', 'POST /v1/batch']);
    const second = connect({ store });
    const { sent, refused, remaining } = await second.sync();
    assert.deepEqual([sent, refused, remaining], [2, [], 0]);
    assert.deepEqual((await second.query(task)).map(({ title }) => title).sort(), ['t0', 't1']);
    await second.close();
  });

  for (const closesItself of [false, true]) {
    const when = closesItself ? 'by a hook' : 'while a hook runs';
    test(`${kind}: a client that is closed ${when} sends nothing more, and lets go of the queue`, async () => {
      const store = await make();
      const first = connect({ store });
      const task = await defineTask(first);
      let ended = () => {};
      const inHook = new Promise((resolve) => {
        first.registerTrigger({
          model: task,
          event: 'afterCreate',
          handler: () => {
            resolve(undefined);
            return closesItself ? first.close() : new Promise((end) => (ended = end));
          },
        });
      });
      const { instanceId } = await first.queueOfflineAction({ type: 'create', modelId: task, data: { title: 'one' } });
      await first.queueOfflineAction({ type: 'update', modelId: task, instanceId, data: { title: 'two' } });
      const syncing = assert.rejects(first.sync(), Closed);
      await inHook;
      if (!closesItself) await first.close();
      await syncing;
      const second = connect({ store });
      assert.deepEqual((await second.query(task)).map(({ title }) => title), ['one']);
      const { sent, refused, conflicts, remaining } = await second.sync();
      assert.deepEqual([sent, refused, conflicts, remaining], [1, [], [], 0]);
      ended();
      assert.deepEqual((await second.query(task)).map(({ title }) => title), ['two']);
      assert.deepEqual(await second.getQueuedActions(), []);
      await second.close();
    });
  }

  test(`${kind}: different fields come together, the same one waits for a decision`, async () => {
    const client = connect({ store: await make() });
    const task = await defineTask(client);
    const other = connect();
    const apart = async (here, there) => {
      const { id } = await client.createInstance(task, { title: 'base', priority: 1 });
      await client.storeLocally(task, id, await client.getInstance(task, id));
      await client.queueOfflineAction({ type: 'update', modelId: task, instanceId: id, data: here });
      await other.updateInstance(task, id, there);
      return id;
    };
    const one = await apart({ priority: 2 }, { title: 'theirs' });
    assert.deepEqual((await client.sync()).conflicts, []);
    const { title, priority } = await client.getInstance(task, one);
    assert.deepEqual([title, priority], ['theirs', 2]);
    const two = await apart({ priority: 2 }, { priority: 3 });
    await client.queueOfflineAction({ type: 'update', modelId: task, instanceId: two, data: { title: 'follows' } });
    const { conflicts: [conflict], remaining } = await client.sync();
    assert.deepEqual([conflict.field, conflict.local.priority, conflict.remote.priority, conflict.ancestor.priority, remaining], ['priority', 2, 3, 1, 2]);
    assert.equal((await client.getInstance(task, two)).title, 'base');
    await client.resolveConflict(conflict.id, 'local');
    assert.equal((await client.sync()).remaining, 0);
    const after = await client.getInstance(task, two);
    assert.deepEqual([after.title, after.priority], ['follows', 2]);
    await client.close();
  });
}

test('what is taken back is not being sent by another tab', async () => {
  const turns = [];
  class Shared extends MemoryStore {
    async sending(work) {
      turns.push('begins');
      return super.sending(work).finally(() => turns.push('ends'));
    }
  }
  const client = new CosmicSync({ url: 'http://127.0.0.1:9', store: new Shared() });
  const { id } = await client.queueOfflineAction({ type: 'create', modelId: 'Task', data: { title: 'x' } });
  client.watchLocal('Task', ({ reason }) => turns.push(reason));
  assert.equal(await client.discardQueuedAction(id), true);
  assert.deepEqual(turns, ['begins', 'reverted', 'ends']);
  await client.close();
});

test('an edit of what was only just sent overwrites nobody', async () => {
  // The link is lost between the answer to a write and the changes that follow it.
  const client = connect({
    fetch: (where, asked) => {
      if (where.includes('/v1/sync/changes')) throw new TypeError('the link is lost');
      return fetch(where, asked);
    },
  });
  const task = await defineTask(client);
  const { instanceId } = await client.queueOfflineAction({ type: 'create', modelId: task, data: { title: 'sent' } });
  const { isOffline, sent } = await client.sync();
  assert.deepEqual([isOffline, sent], [true, 1]);
  await client.queueOfflineAction({ type: 'update', modelId: task, instanceId, data: { title: 'mine' } });
  await connect().updateInstance(task, instanceId, { title: 'theirs' });
  const { conflicts: [conflict] } = await client.sync();
  assert.deepEqual([conflict.local.title, conflict.remote.title], ['mine', 'theirs']);
  assert.equal((await client.getInstance(task, instanceId)).title, 'theirs');
  await client.close();
});

test('an IndexedDB store is there when it is opened again', async () => {
  const first = connect({ store: new IndexedDbStore('again') });
  await first.queueOfflineAction({ type: 'create', modelId: 'Task', data: { title: 'kept' } });
  await first.storeLocally('Task', '1', { title: 'copy' });
  await first.close();
  const second = connect({ store: new IndexedDbStore('again') });
  assert.deepEqual((await second.getQueuedActions()).map(({ data }) => data), [{ title: 'kept' }]);
  assert.equal((await second.getLocalData('Task', '1')).title, 'copy');
  await second.close();
});

/** A process of its own that runs a script. @param {string} script @param {...string} arguments_ */
function child(script, ...arguments_) {
  const started = spawn(process.execPath, ['--input-type=module', '-e', script, ...arguments_], { stdio: ['ignore', 'pipe', 'inherit'] });
  return { started, lines: createInterface({ input: started.stdout })[Symbol.asyncIterator]() };
}

test('a queue survives kill -9 in its order, and a torn line', async () => {
  const path = await freshPath();
  const { started, lines } = child(
    `import { CosmicSync } from '${MODULE}';
     import { FileStore } from '${FILE_STORE}';
     const client = new CosmicSync({ url: 'http://127.0.0.1:9', store: new FileStore(process.argv[1]) });
     for (let number = 0; ; number += 1) {
       const { id } = await client.queueOfflineAction({ type: 'create', modelId: 'Task', data: { number } });
       process.stdout.write(id + '\\n');
     }`,
    path,
  );
  const acknowledged = [];
  while (acknowledged.length < 20) acknowledged.push((await lines.next()).value);
  const held = new FileStore(path);
  await assert.rejects(held.open(), StoreInUse);
  started.kill('SIGKILL');
  for (let line = await lines.next(); !line.done; line = await lines.next()) acknowledged.push(line.value);
  await appendFile(path, '[{"table":"action","key":99999,"val'); // as a crash in the middle of a write leaves it
  const store = new FileStore(path);
  await store.open();
  const kept = (await store.all('action')).map(({ id }) => id);
  assert.deepEqual(kept.slice(0, acknowledged.length), acknowledged);
  assert.ok(kept.length <= acknowledged.length + 1); // one may be there whose word did not come through
  const next = await store.append((place) => ({ place }));
  assert.equal(next.place, kept.length + 1);
  await store.close();
  const again = new FileStore(path);
  await again.open();
  assert.equal((await again.all('action')).length, kept.length + 1);
  await again.close();
});

test('what was being sent when the process was killed is stored once', async () => {
  const path = await freshPath();
  const client = connect();
  const task = await defineTask(client);
  const { started, lines } = child(
    `import { CosmicSync } from '${MODULE}';
     import { FileStore } from '${FILE_STORE}';
     const [, url, token, path, task] = process.argv;
     const hang = async (where, asked) => {
       const answer = await fetch(where, asked);
       if (!where.endsWith('/v1/batch')) return answer;
       process.stdout.write('the node has it\\n');
       return new Promise((resolve) => setTimeout(resolve, 600_000));
     };
     const client = new CosmicSync({ url, token, store: new FileStore(path), fetch: hang });
     for (const title of ['one', 'two']) await client.queueOfflineAction({ type: 'create', modelId: task, data: { title } });
     await client.sync();`,
    URL_HERE, TOKEN, path, task,
  );
  assert.equal((await lines.next()).value, 'the node has it');
  started.kill('SIGKILL');
  await once(started, 'exit');
  const again = connect({ store: new FileStore(path) });
  const result = await again.sync();
  assert.deepEqual([result.sent, result.refused, result.conflicts, result.remaining], [2, [], [], 0]);
  assert.deepEqual((await client.query(task, null, { sort: { title: 1 } })).map(({ title }) => title), ['one', 'two']);
  await again.close();
});

test('a journal that is mostly history is written anew', async () => {
  const path = await freshPath();
  const line = (/** @type {any} */ change) => `${JSON.stringify([change])}\n`;
  const before = [...Array(990).keys()].map((value) => line({ table: 'note', key: 'n', value }));
  await writeFile(path, line({ table: 'action', key: 1, value: { place: 1 } }) + before.join('') + line({ table: 'action', key: 1 }));
  const store = new FileStore(path);
  await store.open();
  assert.equal((await readFile(path, 'utf8')).split('\n').length, 993); // not yet
  for (let number = 0; number < 20; number += 1) await store.write([{ table: 'note', key: 'n', value: number }]);
  await store.close();
  const lines = (await readFile(path, 'utf8')).split('\n').length;
  assert.ok(lines < 300, `${lines} lines`);
  const again = new FileStore(path);
  await again.open();
  assert.equal(await again.get('note', 'n'), 19);
  assert.equal((await again.append((place) => ({ place }))).place, 2); // no place is given twice
  await again.close();
});
