/** Subscriptions over both kinds of link, through a node that is killed and started again. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';

import { NotFound } from 'cosmicsync';

import { connect, fileStore, until } from './helpers.js';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {any} */ (server.address());
  server.close();
  return port;
}

/** A node of this test's own. @param {string} directory @param {number} port */
async function startNode(directory, port) {
  const [program, ...rest] = JSON.parse(/** @type {string} */ (process.env.COSMICSYNC_NODE));
  const ports = ['--api', `127.0.0.1:${port}`, '--listen', '127.0.0.1:0', '--no-mdns'];
  const node = spawn(program, [...rest, 'start', '--data-dir', directory, ...ports], { stdio: ['ignore', 'pipe', 'ignore'] });
  for await (const line of createInterface({ input: node.stdout })) if (line.includes('http')) break;
  const url = `http://127.0.0.1:${port}`;
  return { url, token: (await readFile(join(directory, 'owner.token'), 'utf8')).trim(), kill: async () => {
    node.kill('SIGKILL');
    if (node.exitCode === null && node.signalCode === null) await once(node, 'exit');
  } };
}

test('a subscription goes on where it was when the node is back, and so does the queue', { skip: !process.env.COSMICSYNC_NODE }, async () => {
  const directory = join(await mkdtemp(join(tmpdir(), 'cosmicsync-')), 'data');
  const port = await freePort();
  let node = await startNode(directory, port);
  const store = await fileStore();
  const writer = connect({ url: node.url, token: node.token, store });
  await writer.defineModel('Task', { fields: { title: 'string' } });
  const links = { sse: connect({ url: node.url, token: node.token, WebSocket: false }) };
  if (globalThis.WebSocket) links.socket = connect({ url: node.url, token: node.token });
  const heard = {};
  const subscriptions = {};
  for (const [kind, client] of Object.entries(links)) {
    heard[kind] = [];
    subscriptions[kind] = await client.subscribe('Task', (event) => heard[kind].push([event.type, event.data?.title]));
    await subscriptions[kind].ready();
  }
  const { id } = await writer.createInstance('Task', { title: 'before' });
  for (const kind of Object.keys(links)) await until(() => heard[kind].length === 1, `the first event by ${kind}`);
  await node.kill();
  await writer.queueOfflineAction({ type: 'create', modelId: 'Task', data: { title: 'while down' } });
  await writer.queueOfflineAction({ type: 'delete', modelId: 'Task', instanceId: id });
  const offline = await writer.sync();
  assert.deepEqual([offline.isOffline, offline.remaining], [true, 2]);
  node = await startNode(directory, port);
  try {
    assert.equal((await writer.sync()).sent, 2);
    for (const kind of Object.keys(links)) {
      await until(() => heard[kind].length === 3, `the missed events by ${kind}`);
      assert.deepEqual(heard[kind], [['create', 'before'], ['create', 'while down'], ['delete', undefined]]);
      await subscriptions[kind].close();
    }
  } finally {
    await node.kill();
    await writer.close();
  }
});

const OLD = '00000000.1.0'; // of another life of a node's store

for (const WebSocket of [false, ...(globalThis.WebSocket ? [undefined] : [])]) {
  const kind = WebSocket === false ? 'server-sent events' : 'a socket';
  test(`by ${kind}: events are chosen, iterated over, and refused by name`, async () => {
    const client = connect({ WebSocket });
    const model = `Heard${process.pid}${WebSocket === false}`;
    await client.defineModel(model, { fields: { title: 'string' } });
    const { id } = await client.createInstance(model, { title: 'a' });
    const other = await client.createInstance(model, { title: 'b' });
    const subscription = await client.subscribe(model, null, { instanceId: id, events: ['updated'] });
    const events = subscription[Symbol.asyncIterator]();
    const first = events.next();
    await subscription.ready();
    await client.updateInstance(model, other.id, { title: 'not this one' });
    await client.updateInstance(model, id, { title: 'heard' });
    assert.equal((await first).value.data.title, 'heard');
    const { cursor } = subscription;
    await client.updateInstance(model, id, { title: 'heard later' });
    await subscription.close();
    await events.return(undefined);

    // The event that was not gone on from comes again, and then what came after it.
    const resumed = await client.subscribe(model, null, { cursor, instanceId: id });
    const again = [];
    for await (const event of resumed) {
      again.push([event.type, event.instanceId, event.data.title]);
      if (again.length === 2) break;
    }
    assert.deepEqual(again, [['update', id, 'heard later'], ['update', id, 'heard later']]); // as the instance is now

    const ended = [];
    const wrong = connect({ WebSocket, onError: (error) => ended.push(error) });
    const nothing = await wrong.subscribe('NoSuchModel', () => {});
    await assert.rejects(nothing.ready(), NotFound);
    assert.equal(ended.length, 1);
    await client.close();
  });

  test(`by ${kind}: where what was missed is not known, copies are read anew, and it goes on`, async () => {
    const client = connect({ WebSocket });
    const model = `Missed${process.pid}${WebSocket === false}`;
    await client.defineModel(model, { fields: { title: 'string' } });
    const { id } = await client.createInstance(model, { title: 'now' });
    await client.storeLocally(model, id, { ...(await client.getInstance(model, id)), title: 'once', version: 'old' });
    await client.storeLocally(model, 'own', { title: "the app's own" });
    const heard = [];
    const subscription = await client.subscribe(model, async ({ type, data }) => {
      heard.push([type, data?.title, (await client.getLocalData(model, id)).title]);
      if (type === 'update') await subscription.close(); // from within: no handler waits for itself
    }, { cursor: OLD });
    await until(() => heard.length === 1, 'the resync');
    await client.updateInstance(model, id, { title: 'later' });
    await until(() => heard.length === 2, 'the update');
    assert.deepEqual(heard, [['resync', undefined, 'now'], ['update', 'later', 'later']]);
    assert.equal((await client.getLocalData(model, 'own')).title, "the app's own");
    await client.close();
  });

  test(`by ${kind}: a token that counts no more is renewed`, async () => {
    const client = connect({ WebSocket, token: undefined });
    const account = { email: `rt${process.pid}${WebSocket === false}@example.org`, password: 'securepassword123' };
    await client.auth.register({ ...account, username: account.email.split('@')[0] });
    await client.auth.login(account);
    const model = `Renewed${process.pid}${WebSocket === false}`;
    await client.defineModel(model, { fields: { title: 'string' } });
    const { token } = client.auth.tokens;
    client.auth.use({ ...client.auth.tokens, token: `${token}x` });
    const heard = [];
    const subscription = await client.subscribe(model, ({ data }) => heard.push(data.title));
    await subscription.ready();
    assert.notEqual(client.auth.tokens.token, token);
    await client.createInstance(model, { title: 'heard' });
    await until(() => heard.length === 1, 'the event');
    await client.close();
  });
}

test('a local view that fell behind is read anew by partialSync', async () => {
  const client = connect();
  const model = `Behind${process.pid}`;
  await client.defineModel(model, { fields: { title: 'string' } });
  const [kept, gone] = [await client.createInstance(model, { title: 'now' }), await client.createInstance(model, {})];
  for (const { id } of [kept, gone]) await client.storeLocally(model, id, { title: 'once', version: 'old' });
  await client.storeLocally(`${model}Here`, '1', { title: 'of a model that is only here' });
  await connect().deleteInstance(model, gone.id);
  assert.equal((await client.partialSync(OLD)).resync, true);
  assert.equal((await client.getLocalData(model, kept.id)).title, 'now');
  assert.equal(await client.getLocalData(model, gone.id), null);
  assert.ok(await client.getLocalData(`${model}Here`, '1'));
  await client.close();
});
