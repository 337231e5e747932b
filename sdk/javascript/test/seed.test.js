/**
 * Every example of CivicBase's documentation that uses `cosmicSync`, run literally through this library.
 *
 * The examples are read from `seed.md`, word for word. What they take for granted (`require`, `updateUIOptimistically`,
 * a page's `window`, ids in scope) is handed to them; nothing of them is changed.
 */

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';

import { connect, until } from './helpers.js';

const page = await readFile(new URL('./seed.md', import.meta.url), 'utf8');
/** @type {Map<number, {title: string, code: string}>} */
const examples = new Map();
for (const [, number, title, code] of page.matchAll(/^## (\d+)\. (.*)\n\n```javascript\n([^]*?)^```$/gm)) {
  examples.set(Number(number), { title, code });
}
const run = new Set();
const AsyncFunction = /** @type {any} */ (async () => {}).constructor;

/** Run an example with names in scope. -> what it declares under `wanted`. */
async function example(number, scope = {}, wanted = []) {
  run.add(number);
  const { code } = /** @type {{code: string}} */ (examples.get(number));
  const names = ['cosmicSync', ...Object.keys(scope)];
  const body = `${code}\nreturn { ${wanted.join(', ')} };`;
  return new AsyncFunction(...names, body)(cosmicSync, ...Object.values(scope));
}

let moved = 0; // what the last sync of the node with its peers counted: what was just written may go to one meanwhile
const cosmicSync = connect({
  onError: (error) => { throw error; },
  fetch: async (where, asked) => {
    const answer = await fetch(where, asked);
    if (where.includes('/v1/sync?')) moved = (await answer.clone().json()).syncedCount;
    return answer;
  },
});
const PROFILE = {
  firstName: 'string', lastName: 'string', birthYear: 'integer', email: 'string', age: 'integer', lastActive: 'datetime',
  interests: 'array', skills: 'array', friends: 'array', encryptedInfo: 'string', encryptedPersonalInfo: 'string',
  twoFactorSecret: 'string', personalInfo: 'string',
};

before(async () => {
  await cosmicSync.defineModel('UserProfile', { fields: PROFILE });
  await cosmicSync.defineModel('Project', {
    fields: { name: 'string', createdBy: 'string', status: 'string', endDate: 'date' },
  });
  await cosmicSync.defineModel('UserAccount', { fields: { balance: 'number', userId: 'string' } });
  await cosmicSync.defineModel('UserConsent', { fields: { marketing: 'boolean' } });
  await cosmicSync.defineModel('ChatMessage', { fields: { text: 'string' } });
  await cosmicSync.defineModel('CollaborativeDocument', { fields: { name: 'string', n: 'integer' } });
  await cosmicSync.defineModel('Counter', { fields: { counts: 'json' } });
  await cosmicSync.defineModel('VersionedDocument', { fields: { name: 'string', vector: 'json' } });
  await cosmicSync.defineModel('ComplexDocument', { fields: { a: 'integer', b: 'integer', c: 'integer' } });
  await cosmicSync.defineModel('CriticalData', { fields: { name: 'string' } });
  await cosmicSync.createInstance('UserProfile', { id: 'user_123', firstName: 'Ada', lastName: 'Lovelace', birthYear: 1815, age: 36, email: 'ada@example.org', interests: ['maths'], friends: ['charles'] });
  await cosmicSync.createInstance('UserProfile', { id: 'profile_123', firstName: 'Bob', age: 12, interests: [], friends: [] });
});

after(() => cosmicSync.close());

/** A copy is here, an action waits, and the node has moved on; then both meet. */
async function meet(model, base, here, there) {
  const { id } = await cosmicSync.createInstance(model, base);
  await cosmicSync.storeLocally(model, id, await cosmicSync.getInstance(model, id));
  await cosmicSync.queueOfflineAction({ type: 'update', modelId: model, instanceId: id, data: here });
  const other = connect();
  await other.updateInstance(model, id, there);
  await other.close();
  const result = await cosmicSync.sync();
  return { result, shown: await cosmicSync.getInstance(model, id) };
}

const require = createRequire(import.meta.url);
const CryptoJS = {
  AES: {
    encrypt: (text, key) => ({ toString: () => Buffer.from(`${key}:${text}`).toString('base64') }),
    decrypt: (text, key) => ({ toString: () => Buffer.from(text, 'base64').toString().slice(key.length + 1) }),
  },
  enc: { Utf8: 'utf8' },
};

test('encryption in data operations', async () => {
  const e2e = {
    encrypt: (data) => CryptoJS.AES.encrypt(JSON.stringify(data), 'k').toString(),
    decrypt: (data) => JSON.parse(CryptoJS.AES.decrypt(data, 'k').toString()),
  };
  const { decryptedInfo } = await example(1, { e2e }, ['decryptedInfo']);
  assert.deepEqual(decryptedInfo, { ssn: '123-45-6789' });
  const lent = (name) => (name === 'crypto-js' ? CryptoJS : require(name));
  const { decryptData } = await example(27, { require: lent, userId: 'user_123' }, ['decryptData']);
  const { encryptedPersonalInfo } = await cosmicSync.getInstance('UserProfile', 'user_123');
  assert.deepEqual(decryptData(encryptedPersonalInfo, 'user_specific_encryption_key'), { personalInfo: 'Sensitive content' });
});

test('a second factor', async () => {
  const speakeasy = {
    generateSecret: () => ({ base32: 'JBSWY3DP', ascii: 'Hello' }),
    otpauthURL: ({ secret }) => `otpauth://${secret}`,
    totp: { verify: ({ secret, token }) => secret === 'JBSWY3DP' && token === '123456' },
  };
  const { qrCodeUrl } = await example(2, { require: () => speakeasy }, ['qrCodeUrl']);
  assert.equal(qrCodeUrl, 'otpauth://Hello');
  const { verify2FA } = await example(3, { speakeasy }, ['verify2FA']);
  assert.equal(await verify2FA('user_123', '123456'), true);
  assert.equal(await verify2FA('user_123', '000000'), false);
});

test('secure erasure', async () => {
  await cosmicSync.createInstance('UserProfile', { id: 'user_gone', personalInfo: 'x' });
  await cosmicSync.storeLocally('UserProfile', 'user_gone', { personalInfo: 'x' });
  const { secureErase } = await example(4, { crypto: require('node:crypto') }, ['secureErase']);
  await secureErase('user_gone');
  await assert.rejects(cosmicSync.getInstance('UserProfile', 'user_gone'), { errorCode: 'NOT_FOUND' });
  assert.equal(await cosmicSync.getLocalData('UserProfile', 'user_gone'), null);
});

test('resolver: last write wins', async () => {
  await example(5);
  const { shown } = await meet('UserProfile', { firstName: 'base' }, { firstName: 'here' }, { firstName: 'there' });
  assert.equal(shown.firstName, 'there'); // written after what had been queued
});

test('resolver: custom merge', async () => {
  await example(6);
  const base = { firstName: 'base', interests: ['a'], friends: [] };
  const { shown } = await meet('UserProfile', base, { interests: ['a', 'b'] }, { interests: ['a', 'c'], friends: ['d'] });
  assert.deepEqual([...shown.interests].sort(), ['a', 'b', 'c']);
  assert.deepEqual(shown.friends, ['d']);
});

test('resolver: operational transformation, which leaves open what it does not decide', async () => {
  const { otResolver } = await example(7, {}, ['otResolver']);
  const { result } = await meet('CollaborativeDocument', { n: 1 }, { n: 2 }, { n: 3 });
  assert.deepEqual(otResolver.operations.map(({ n }) => n), [2, 3]);
  assert.equal(result.conflicts.length, 1);
  otResolver.transform = (one, two) => (one.n > two.n ? one : two);
  await cosmicSync.resolveConflict(result.conflicts[0].id, otResolver.resolve());
  assert.equal((await cosmicSync.sync()).remaining, 0);
});

test('resolver: a CRDT', async () => {
  const { GCounter } = await example(8, {}, ['GCounter']);
  const { merge, value } = GCounter.prototype;
  cosmicSync.extendModel('Counter', { merge, value });
  const { shown } = await meet('Counter', { counts: { a: 1 } }, { counts: { a: 1, b: 2 } }, { counts: { a: 3 } });
  assert.deepEqual([shown.counts, shown.value()], [{ a: 3, b: 2 }, 5]);
});

test('resolver: version vectors', async () => {
  const mergeStrategy = (local, remote) => ({ ...remote, name: `${local.name}+${remote.name}` });
  const { VersionVector } = await example(9, { mergeStrategy }, ['VersionVector']);
  cosmicSync.extendModel('VersionedDocument', {
    get versionVector() {
      return Object.assign(new VersionVector(), { vector: this.vector });
    },
  });
  const base = { name: 'base', vector: { a: 1 } };
  const later = await meet('VersionedDocument', base, { name: 'here', vector: { a: 2 } }, { name: 'there' });
  assert.equal(later.shown.name, 'here');
  const apart = await meet('VersionedDocument', base, { name: 'x', vector: { a: 2 } }, { name: 'y', vector: { a: 1, b: 1 } });
  assert.equal(apart.shown.name, 'x+y');
});

test('resolver: three-way merge', async () => {
  const asked = [];
  const manuallyResolveConflict = (...values) => {
    asked.push(values);
    return Math.max(...values);
  };
  await example(10, { manuallyResolveConflict });
  const { result, shown } = await meet('ComplexDocument', { a: 1, b: 1, c: 1 }, { a: 2, c: 5 }, { b: 3, c: 4 });
  assert.deepEqual([shown.a, shown.b, shown.c, result.conflicts], [2, 3, 5, []]);
  assert.deepEqual(asked, [[5, 4, 1]]);
});

test('resolver: with the user', async () => {
  const scope = {
    findConflicts: (local, remote) => Object.keys(local).filter((name) => local[name] !== remote[name]),
    presentConflictsToUser: async (conflicts) => Object.fromEntries(conflicts.map((name) => [name, 'chosen'])),
    applyResolutions: (local, remote, resolutions) => ({ ...local, ...resolutions }),
  };
  await example(11, scope);
  const { shown } = await meet('CriticalData', { name: 'base' }, { name: 'here' }, { name: 'there' });
  assert.equal(shown.name, 'chosen');
});

test('validators and triggers', async () => {
  await cosmicSync.createInstance('UserAccount', { id: 'account_123', balance: 500, userId: 'user_123' });
  await example(12);
  const printed = [];
  await example(13, { console: { error: (text) => printed.push(text) } });
  assert.deepEqual(printed, ['Account balance cannot be negative']);
  assert.equal((await cosmicSync.getInstance('UserAccount', 'account_123')).balance, 500);
  const notified = [];
  await example(14, { sendLowBalanceNotification: async (user) => notified.push(user) });
  await example(15);
  assert.deepEqual(notified, ['user_123']);
});

test('query methods', async () => {
  await cosmicSync.createInstance('Project', { id: 'p1', createdBy: 'user_123', status: 'active', endDate: '2999-01-01', name: 'one' });
  await cosmicSync.createInstance('Project', { id: 'p2', createdBy: 'user_123', status: 'active', endDate: '2001-01-01', name: 'two' });
  await cosmicSync.createInstance('Project', { id: 'p3', createdBy: 'user_456', status: 'active', endDate: '2999-01-01', name: 'three' });
  await example(16);
  const { activeProjects } = await example(17, {}, ['activeProjects']);
  assert.deepEqual(activeProjects.map(({ id }) => id), ['p1']);
});

test('model methods', async () => {
  await example(18);
  const printed = [];
  await example(19, { console: { log: (text) => printed.push(text) } });
  assert.deepEqual(printed, ['Ada Lovelace', true]);
});

test('sync strategies', async () => {
  await example(20);
  const { shown } = await meet('ChatMessage', { text: 'base' }, { text: 'here' }, { text: 'there' });
  assert.equal(shown.text, 'there');
});

test('rights of users', async () => {
  await example(21);
  const [made] = await cosmicSync.query('UserProfile', null, { limit: 1, sort: { createdAt: -1 } });
  assert.deepEqual(made.skills, ['JavaScript', 'React']);
  const { getUserData } = await example(22, {}, ['getUserData']);
  assert.equal((await getUserData('user_123')).lastName, 'Lovelace');
  const { updateUserData } = await example(23, {}, ['updateUserData']);
  await updateUserData('user_123', { age: 37 });
  const { exportUserData } = await example(25, { getUserData }, ['exportUserData']);
  const exported = JSON.parse(await exportUserData('user_123'));
  assert.equal(exported.userProfile.age, 37);
  assert.deepEqual(exported.projects.map(({ id }) => id).sort(), ['p1', 'p2']);
  await cosmicSync.createInstance('UserConsent', { id: 'user_123', marketing: false });
  const { updateUserConsent, checkUserConsent } = await example(26, {}, ['updateUserConsent', 'checkUserConsent']);
  await updateUserConsent('user_123', { marketing: true });
  assert.equal(await checkUserConsent('user_123', 'marketing'), true);
  const mailed = [];
  const { notifyDataBreach } = await example(28, { sendDataBreachEmail: async (to) => mailed.push(to) }, ['notifyDataBreach']);
  await notifyDataBreach(['user_123']);
  assert.deepEqual(mailed, ['ada@example.org']);
});

test('the right to be forgotten', async () => {
  await cosmicSync.createInstance('UserProfile', { id: 'user_left', firstName: 'Lee' });
  await cosmicSync.createInstance('Project', { id: 'p9', createdBy: 'user_left' });
  await cosmicSync.storeLocally('UserProfile', 'user_left', { firstName: 'Lee' });
  const { deleteUserData } = await example(24, {}, ['deleteUserData']);
  await deleteUserData('user_left');
  await assert.rejects(cosmicSync.getInstance('UserProfile', 'user_left'), { status: 404 });
  await until(async () => (await cosmicSync.query('Project', { createdBy: 'user_left' })).length === 0, 'the deletion');
  assert.equal(await cosmicSync.getLocalData('UserProfile', 'user_left'), null);
});

test('offline storage, queue, sync and conflicts', async () => {
  cosmicSync.setConflictResolver('UserProfile', () => undefined); // from here on, people decide
  const scope = { modelId: 'UserProfile', instanceId: 'local_1', data: { firstName: 'Lo' } };
  const { localData } = await example(29, scope, ['localData']);
  assert.equal(localData.firstName, 'Lo');
  const { queuedActions } = await example(30, {}, ['queuedActions']);
  assert.deepEqual(queuedActions.map(({ type, instanceId }) => [type, instanceId]), [['update', 'profile_123']]);

  const { handleConflicts } = await example(32, { promptUserForResolution: ({ remote }) => ({ ...remote, firstName: 'decided' }) }, ['handleConflicts']);
  const printed = [];
  const { syncData } = await example(31, { handleConflicts, console: { log: (text) => printed.push(text) } }, ['syncData']);
  await syncData();
  assert.deepEqual(printed, [`Synced ${1 + moved} items`]);
  assert.deepEqual((await cosmicSync.getInstance('UserProfile', 'profile_123')).interests, ['hiking', 'photography']);

  const { id } = await cosmicSync.createInstance('UserProfile', { firstName: 'base' });
  await cosmicSync.storeLocally('UserProfile', id, await cosmicSync.getInstance('UserProfile', id));
  const shown = [];
  const { updateProfile } = await example(33, { updateUIOptimistically: (...seen) => shown.push(seen), navigator: { onLine: false }, syncData }, ['updateProfile']);
  await updateProfile(id, { firstName: 'offline' });
  assert.deepEqual(shown, [[id, { firstName: 'offline' }]]);
  assert.equal((await cosmicSync.getLocalData('UserProfile', id)).firstName, 'offline');
  await cosmicSync.updateInstance('UserProfile', id, { firstName: 'online' });
  await syncData(); // hands the conflict to `handleConflicts`
  await cosmicSync.sync();
  assert.equal((await cosmicSync.getInstance('UserProfile', id)).firstName, 'decided');

  let last = Date.now() - 60_000;
  const scopeOfSync = { getLastSyncTimestamp: async () => last, updateLastSyncTimestamp: (now) => { last = now; } };
  const { partialSync } = await example(34, scopeOfSync, ['partialSync']);
  await partialSync();
  assert.ok(Date.now() - last < 60_000);
});

test('queries, indexes and pages', async () => {
  await example(35);
  const defined = async () => (await cosmicSync.request('GET', '/v1/data-models/UserProfile')).body;
  await until(async () => (await defined()).indexes.length, 'the definition, which the example does not wait for');
  assert.deepEqual((await defined()).indexes.map(({ key, unique }) => [key, unique]), [[{ email: 1 }, true], [{ lastActive: -1 }, false]]);
  const { users, userNames } = await example(36, {}, ['users', 'userNames']);
  assert.deepEqual(users.map(({ id }) => id), ['user_123']);
  assert.deepEqual(userNames.map((user) => Object.keys(user)), [['id', 'firstName', 'lastName']]);
  const { lazyLoadUserProjects } = await example(37, {}, ['lazyLoadUserProjects']);
  const pages = [await lazyLoadUserProjects('user_123', 1, 1), await lazyLoadUserProjects('user_123', 2, 1)];
  assert.deepEqual(pages.flat().map(({ id }) => id), ['p2', 'p1']);
});

test('optimistic updates, deltas, batches and measures', async () => {
  const told = [];
  const scope = { updateUIOptimistically: () => told.push('shown'), revertUIUpdate: () => told.push('reverted') };
  const { updateUserProfile } = await example(38, scope, ['updateUserProfile']);
  await updateUserProfile('user_123', { age: 38 });
  await assert.rejects(updateUserProfile('user_123', { age: 'old' }), { errorCode: 'BAD_REQUEST', details: { age: 'Must be an integer' } });
  assert.deepEqual(told, ['shown', 'shown', 'reverted']);
  const { syncUserProfile } = await example(39, {}, ['syncUserProfile']);
  await syncUserProfile('user_123', { firstName: 'Ada', age: 39 });
  const timers = [];
  const names = ['queueUpdate', 'processBatchUpdates', 'batchUpdates'];
  const batch = await example(40, { setInterval: (work, ms) => timers.push([work, ms]) }, names);
  batch.queueUpdate('UserProfile', 'user_123', { age: 40 });
  batch.queueUpdate('UserProfile', 'profile_123', { age: 13 });
  await timers[0][0]();
  await timers[0][0](); // with nothing to send
  assert.deepEqual([timers[0][1], batch.batchUpdates.length], [5000, 0]);
  assert.equal((await cosmicSync.getInstance('UserProfile', 'user_123')).age, 40);
  const { measureSyncPerformance } = await example(41, {}, ['measureSyncPerformance']);
  await measureSyncPerformance();
  assert.equal(performance.getEntriesByName('Sync Duration').length, 1);
});

test('no example was left out', () => {
  assert.equal(examples.size, 41);
  assert.deepEqual([...examples.keys()].filter((number) => !run.has(number)), []);
  assert.equal([...examples.values()].filter(({ code }) => code.includes('cosmicSync')).length, 41);
});
