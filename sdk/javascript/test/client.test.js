/** Data, hooks and accounts against a real node, and what happens when an answer is lost. */

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { BadRequest, CosmicSync, CosmicSyncError, NodeUnreachable, NotFound, PreconditionFailed, Unauthorized } from 'cosmicsync';

import { URL_HERE, connect, defineTask } from './helpers.js';

const client = connect();
after(() => client.close());

test('an instance is made, read, changed and deleted', async () => {
  const task = await defineTask(client);
  const made = await client.createInstance(task, { title: 'one', tags: new Set(['a']), due: '2030-01-02' });
  const found = await client.getInstance(task, made.id);
  assert.deepEqual([found.title, found.status, found.tags], ['one', 'TODO', ['a']]);
  assert.deepEqual([found.version, found.createdAt, found.timestamp], [made.version, found.created_at, Date.parse(found.updated_at)]);
  const changed = await client.updateInstance(task, made.id, { status: 'DONE' }, { ifMatch: made.version });
  assert.notEqual(changed.version, made.version);
  await assert.rejects(client.updateInstance(task, made.id, {}, { ifMatch: made.version }), PreconditionFailed);
  await client.deleteInstance(task, made.id);
  await assert.rejects(client.getInstance(task, made.id), NotFound);
  await assert.rejects(client.createInstance(task, { colour: 1 }), (error) => {
    assert.ok(error instanceof BadRequest && error instanceof CosmicSyncError);
    assert.deepEqual(Object.keys(error.details).sort(), ['colour', 'title']);
    return error.errorCode === 'BAD_REQUEST' && error.status === 400;
  });
});

test('queries take the window that they are asked for', async () => {
  const task = await defineTask(client);
  const numbers = [...Array(230).keys()];
  await client.batch(numbers.map((n) => ({ method: 'POST', path: `/data/${task}`, body: { title: `t${n}`, priority: n } })));
  assert.equal((await client.query(task)).length, 230);
  for (const [skip, limit] of [[0, 5], [10, 5], [7, 5], [101, 120], [225, 20], [230, 1], [0, 0]]) {
    const page = await client.query(task, null, { skip, limit, sort: { priority: 1 } });
    assert.deepEqual(page.map(({ priority }) => priority), numbers.slice(skip, skip + limit));
  }
  const some = await client.query(task, { $or: [{ priority: 3 }, { title: /^t22[01]/ }] }, { sort: { priority: -1 } });
  assert.deepEqual(some.map(({ priority }) => priority), [221, 220, 3]);
  const few = await client.query(task, { priority: { $lt: 3 } }, { sort: { status: 1, priority: -1 }, limit: 2, projection: { title: 1 } });
  assert.deepEqual(few.map((item) => item.title), ['t2', 't1']);
  const summed = await client.aggregate(task, { aggregations: [{ field: 'id', operation: 'count', alias: 'n' }], filter: { priority: { $gte: 200 } } });
  assert.deepEqual(summed, [{ n: 30 }]);
  const plural = await client.graphql(`query($n: String!) { __type(name: $n) { name } }`, { n: task });
  assert.equal(plural.__type.name, task);
  await assert.rejects(client.graphql('{ nothing }'), BadRequest);
});

test('a create whose answer was lost makes one instance', async () => {
  const task = await defineTask(client);
  const keys = [];
  const losing = connect({
    fetch: async (url, asked) => {
      const answer = await fetch(url, asked);
      if (asked.method !== 'POST') return answer;
      keys.push(asked.headers['Idempotency-Key']);
      if (keys.length === 1) throw new TypeError('the answer was lost');
      return answer;
    },
  });
  const { id } = await losing.createInstance(task, { title: 'once' });
  assert.deepEqual((await client.query(task)).map((item) => item.id), [id]);
  assert.ok(keys.length === 2 && keys[0] === keys[1]);
});

test('people sign in, stay signed in and sign out', async () => {
  const kept = [];
  let renewed;
  const isRenewed = new Promise((resolve) => (renewed = resolve));
  let refusals = 0;
  const person = new CosmicSync({
    url: URL_HERE,
    onTokens: (tokens) => {
      kept.push(tokens);
      if (kept.length === 3) renewed();
    },
    fetch: async (url, asked) => {
      const answer = await fetch(url, asked);
      if (String(url).endsWith('/me') && answer.status === 401 && (refusals += 1) === 2) await isRenewed; // it comes late
      return answer;
    },
  });
  const account = { email: `js${process.pid}@example.org`, password: 'securepassword123' };
  await person.auth.register({ ...account, username: `js${process.pid}` });
  await assert.rejects(person.auth.login({ ...account, password: 'another password' }), Unauthorized);
  await person.auth.login(account);
  const first = person.auth.tokens;
  person.auth.use({ ...first, token: `${first.token}x` });
  const [one, two] = await Promise.all([person.auth.me(), person.auth.me()]); // one refresh serves both
  assert.equal(one.username, two.username);
  assert.ok(kept.length === 3 && refusals === 2);
  person.auth.use({ ...person.auth.tokens, expiresAt: Date.now() + 1_000 });
  await person.auth.putUserData('theme', { dark: true });
  assert.deepEqual(await person.auth.userData('theme'), { dark: true });
  assert.equal(kept.length, 5);
  assert.equal(person.rateLimit.limit, 1000);
  await person.auth.logout();
  await assert.rejects(person.auth.me(), Unauthorized);
});

test('a query method that is not registered here is asked of the node', async () => {
  const task = await defineTask(client);
  await assert.rejects(client.model(task).noSuchQuery({ user: 'x' }), { errorCode: 'NOT_FOUND' });
  await assert.rejects(client[task].noSuchQuery('x'), TypeError);
  assert.equal(await Promise.resolve(client), client); // a client is no promise
  await client.defineModel('Offer', { fields: { name: 'string', price: 'integer' } });
  const { id } = await client.createInstance('Offer', { name: 'tea', price: 4 });
  await client.createInstance('Offer', { name: 'car', price: 9_000 });
  assert.deepEqual(await client.Offer.cheap({ below: 10 }), ['tea']);
  assert.equal(await client.callMethod('Offer', id, 'label', { currency: 'EUR' }), 'tea: 4 EUR');
});

test('files, webhooks and erasure', async () => {
  const task = await defineTask(client);
  const { id } = await client.createInstance(task, { title: 'one' });
  const exported = await client.exportData({ models: [task] });
  assert.deepEqual(exported[task].map((record) => record.id), [id]);
  const { created } = await client.importData('{"title": "two"}\n', { model: task, format: 'ndjson' });
  assert.equal(created, 1);
  const hook = await client.registerWebhook({ url: 'https://app.example.org/hook', events: [`${task}.created`], secret: 'a'.repeat(32) });
  assert.ok(hook.id);
  const account = { email: `gone${process.pid}@example.org`, username: `gone${process.pid}`, password: 'securepassword123' };
  const { user_id } = await client.auth.register(account);
  assert.equal((await client.notifyPeerDeletion(user_id)).userId, user_id);
  assert.ok((await client.notifyPeerDeletion(user_id, { erase: true })).erasure_id);
});

test('no node is one error of the family', async () => {
  const nowhere = new CosmicSync({ url: 'http://127.0.0.1:9', token: 'x' });
  await assert.rejects(nowhere.getInstance('Task', '1'), (error) => error instanceof NodeUnreachable && error.errorCode === 'NODE_UNREACHABLE');
  const { isOffline } = await nowhere.sync();
  assert.equal(isOffline, true);
});

test('what is written through one node is read through another', { skip: !process.env.COSMICSYNC_OTHER_URL }, async () => {
  const other = connect({ url: process.env.COSMICSYNC_OTHER_URL, token: process.env.COSMICSYNC_OTHER_TOKEN });
  const task = await defineTask(client);
  const { id, heldByPeers } = await client.createInstance(task, { title: 'here' }, { waitForPeers: 1 });
  assert.equal(heldByPeers, 1);
  assert.equal((await other.getInstance(task, id)).title, 'here');
  assert.equal((await other.updateInstance(task, id, { title: 'there' }, { waitForPeers: 1 })).heldByPeers, 1);
  assert.equal((await client.getInstance(task, id)).title, 'there');
});
