/** Every method as a TypeScript app calls it. It is compiled against `types/`, and never run. */

import {
  BadRequest, Closed, Conflict, CosmicSync, CosmicSyncError, Forbidden, IndexedDbStore, MemoryStore, MfaRequired, NodeUnreachable,
  NotFound, NotOffered, PreconditionFailed, RateLimited, ServerFault, StoreInUse, Subscription, Unauthorized,
} from 'cosmicsync';
import { FileStore } from 'cosmicsync/file-store';

export async function everything(): Promise<void> {
  const stores = [new FileStore('todo.jsonl'), new IndexedDbStore('todo'), new MemoryStore()];
  const client = new CosmicSync({
    url: 'http://127.0.0.1:8080', token: 'x', store: stores[0], application: 'default', timeoutMs: 1, rateLimitWaitMaxMs: 1,
    onTokens: (tokens) => localStorage.setItem('token', tokens?.token ?? ''), onError: (error: unknown) => console.error(error),
    fetch, WebSocket: false,
  });
  const account = { email: 'ada@example.org', password: 'correct horse' };
  const { user_id }: { user_id: string } = await client.auth.register({ ...account, username: 'ada' });
  await client.auth.login({ ...account, mfaCode: async () => '123456' });
  client.auth.use(client.auth.tokens);
  const isThere: boolean = await client.auth.refresh();
  const { secret, qr_code } = await client.auth.enableMfa();
  await client.auth.verifyMfa(secret + qr_code);
  await client.auth.changePassword({ currentPassword: 'a', newPassword: 'b' });
  await client.auth.updateMe({ city: (await client.auth.me()).city });
  await client.auth.putUserData('theme', await client.auth.userData('theme'));
  const mayWrite: boolean = await client.auth.isPermitted('write', 'Todo');

  await client.defineModel('Todo', { fields: { title: 'string' }, indexes: [{ key: { title: 1 } }] });
  const { id, version, heldByPeers } = await client.createInstance('Todo', { title: 'a' }, { waitForPeers: 1 });
  const held: number | undefined = heldByPeers;
  await client.updateInstance('Todo', id, { title: (await client.getInstance('Todo', id)).title }, { ifMatch: version });
  await client.query('Todo', { $or: [{ title: /^a/ }, { done: { $ne: true } }] }, { skip: 1, limit: 2, sort: { title: -1 }, projection: { title: 1 } });
  await client.query('Todo', 'title:eq:a');
  await client.aggregate('Todo', { aggregations: [{ field: 'id', operation: 'count', alias: 'n' }] });
  await client.batchUpdate([{ modelName: 'Todo', instanceId: id, updates: { title: 'b' } }]);
  const [{ status }] = await client.batch([{ method: 'DELETE', path: `/data/Todo/${id}` }], { atomic: false, versions: true });
  await client.deleteInstance('Todo', id, { ifMatch: version });

  await client.storeLocally('Todo', id, { title: 'a' }, { ttl: 1_000 });
  const titles: string[] = [await client.getLocalData('Todo', id), ...(await client.queryLocal('Todo', null, { limit: 1 }))].map((one) => one.title);
  const unwatch = client.watchLocal('Todo', ({ reason, data, error }) => console.log(reason, data?.title, error?.details), { id });
  const queued = await client.queueOfflineAction({ type: 'update', modelId: 'Todo', instanceId: id, data: { title: 'c' } });
  await client.discardQueuedAction((await client.getQueuedActions())[0]?.id ?? queued.id);
  const { isOffline, refused, conflicts, syncedCount, sent, received, remaining } = await client.sync({ waitForPeersMs: 100 });
  const { changes, cursor, resync } = await client.partialSync(new Date(), { model: 'Todo' });
  const cached: number = await client.getCachedData('n', async () => 1, 1_000);
  const cleared: number = await client.clearLocalData(user_id);

  await client.setConflictResolver('Todo', (local, remote, ancestor) => ({ ...ancestor, ...remote, title: local.title }));
  await client.setConflictResolver('Todo', 'lww');
  await client.resolveConflict(conflicts[0]?.id ?? (await client.getConflicts('Todo'))[0].id, 'local');
  await client.getCommonAncestor(id, id);

  client.registerValidator({ name: 'v', model: 'Todo', validate: async (data) => { if (!data.title) throw new Error('No title'); } });
  client.registerTrigger({ name: 't', model: 'Todo', event: 'afterCreate', handler: (data, { action }) => console.log(action, data.id) });
  client.registerQueryMethod({ name: 'open', model: 'Todo', query: (limit: number) => client.query('Todo', null, { limit }) });
  client.registerSyncStrategy({ name: 's', model: 'Todo', resolve: (local) => local });
  client.extendModel('Todo', { shout(this: { title: string }) { return this.title.toUpperCase(); } });
  await client.model('Todo').open(3);
  await client.callMethod('Todo', id, 'label', { currency: 'EUR' });
  const data: unknown = await client.graphql('query($id: ID!) { todo(id: $id) { title } }', { id });

  const subscription: Subscription = await client.subscribe(['Todo'], ({ type, model, instanceId, origin }) => console.log(type, model, instanceId, origin), {
    events: ['created', 'conflict'], instanceId: id, cursor, durable: 'todos',
  });
  await subscription.ready();
  for await (const event of await client.subscribe('Todo')) if (event.type === 'resync') break;
  await subscription.close();

  const { inSync, erasure_id } = await client.notifyPeerDeletion(user_id, { erase: true, password: 'x' });
  const hook = await client.registerWebhook({ url: 'https://example.org', events: ['*'], secret: 's' });
  const { failed } = await client.importData(JSON.stringify(await client.exportData({ models: ['Todo'] })), { mode: 'upsert' });
  const answer = await client.request('GET', '/v1/users/me', undefined, { query: { a: 'b' } });
  const left: number | undefined = client.rateLimit?.remaining;
  await client.auth.logout();
  await client.close();

  console.log(isThere, mayWrite, held, status, titles, isOffline, refused[0]?.error.errorCode, syncedCount, sent, received, remaining);
  console.log(changes, resync, cached, cleared, data, inSync, erasure_id, hook.id, failed, answer.body, left, unwatch());
}

export function told(error: unknown): string {
  const kinds = [BadRequest, Closed, Conflict, Forbidden, MfaRequired, NodeUnreachable, NotFound, NotOffered, PreconditionFailed, ServerFault, StoreInUse, Unauthorized];
  if (error instanceof RateLimited) return `again in ${error.retryAfter} s`;
  if (error instanceof CosmicSyncError) return `${error.status} ${error.errorCode} ${Object.keys(error.details)}`;
  return kinds.some((kind) => error instanceof kind) ? 'one of the family' : 'another';
}
