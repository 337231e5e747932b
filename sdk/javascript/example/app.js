/**
 * A list that works without its node: an example of what an app does with this library.
 *
 * Every change is queued first and shown at once; `sync` sends it when a node is there. What is on the page is always
 * the local view, so nothing here asks whether there is a connection before it lets somebody work.
 */

import { CosmicSync, Unauthorized } from 'cosmicsync';

const MODEL = 'ShoppingItem';
const FIELDS = { title: { type: 'string', required: true }, done: 'boolean', added: 'datetime' };
const VALIDATORS = [{ expression: 'size(title) <= 60', message: 'A title has 60 characters at most' }];
const RETRY_MS = 2_000;

const part = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const node = new URLSearchParams(location.search).get('node') ?? 'http://127.0.0.1:8080';

/** @type {Map<string, any>} */
let conflicts = new Map(); // by the instance that they are about
/** @type {Promise<void> | undefined} */
let drawing;
let isSyncing = false;
/** @type {any} */
let subscription;
let isSyncWanted = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let retry;

const client = new CosmicSync({
  url: node,
  onTokens: (tokens) => {
    if (tokens) localStorage.setItem('tokens', JSON.stringify(tokens));
    else localStorage.removeItem('tokens');
  },
  onError: tell,
});

// -- what is shown

/** @param {any} error */
function tell(error) {
  const faults = Object.values(error?.details ?? {});
  part('fault').textContent = faults.length ? faults.join('; ') : (error?.message ?? error);
  part('fault').hidden = false;
}

/** @param {string} text */
function say(text) {
  if (part('state').textContent !== text) part('state').textContent = text; // screen readers hear it once
}

/** Draw what there is now. Many who ask at once get one drawing. */
function show() {
  drawing ??= new Promise((resolve) => setTimeout(resolve)).then(() => {
    drawing = undefined;
    return draw();
  });
  return drawing;
}

async function draw() {
  const items = await client.queryLocal(MODEL, null, { sort: { added: 1, id: 1 } });
  const waiting = new Set((await client.getQueuedActions()).map(({ instanceId }) => instanceId));
  const list = part('items');
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  for (const [place, item] of items.entries()) {
    const row = rows.get(item.id) ?? rowOf(item.id);
    rows.delete(item.id);
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null); // what moves loses the focus
    fill(row, item, waiting.has(item.id));
  }
  for (const row of rows.values()) row.remove();
  part('empty').hidden = items.length > 0;
}

/** A row that does what its controls say. @param {string} id */
function rowOf(id) {
  const row = part('item').content.firstElementChild.cloneNode(true);
  row.dataset.id = id;
  const [done, title, remove] = ['.done', '.title', '.delete'].map((name) => row.querySelector(name));
  done.addEventListener('change', () => change('update', id, { done: done.checked }));
  title.addEventListener('change', () => {
    title.dataset.shown = title.value = title.value.trim() || title.dataset.shown;
    change('update', id, { title: title.value });
  });
  remove.addEventListener('click', () => {
    part('title').focus(); // the button that had it is about to go
    change('delete', id);
  });
  return row;
}

/** @param {HTMLElement} row @param {any} item @param {boolean} isWaiting */
function fill(row, item, isWaiting) {
  const [done, title, waits, remove, conflict] = ['.done', '.title', '.waits', '.delete', '.conflict'].map(
    (name) => /** @type {any} */ (row.querySelector(name)),
  );
  done.checked = Boolean(item.done);
  done.setAttribute('aria-label', `Bought: ${item.title}`);
  if (title.value === (title.dataset.shown ?? '')) title.value = title.dataset.shown = item.title; // else somebody is typing
  title.setAttribute('aria-label', `Rename ${item.title}`);
  remove.setAttribute('aria-label', `Delete ${item.title}`);
  waits.hidden = !isWaiting || conflicts.has(item.id);
  showConflict(conflict, conflicts.get(item.id));
}

/** @param {HTMLElement} box @param {any} conflict of the queue, or of the node */
function showConflict(box, conflict) {
  box.hidden = !conflict;
  if (box.dataset.id === conflict?.id) return;
  box.dataset.id = conflict?.id ?? '';
  for (const button of box.querySelectorAll('button')) button.remove();
  const choices = !conflict
    ? []
    : conflict.local
      ? [['Mine', conflict.local, 'local'], ['Theirs', conflict.remote, 'remote']]
      : conflict.values.map((/** @type {any} */ { value }) => ['', { [conflict.field]: value }, { [conflict.field]: value }]);
  for (const [whose, version, resolution] of choices) {
    const button = document.createElement('button');
    button.type = 'button';
    const said = (conflict.fields ?? [conflict.field]).map((/** @type {string} */ name) => wording(name, version[name]));
    button.textContent = `${whose && `${whose}: `}${said.join(', ')}`;
    button.addEventListener('click', async () => {
      await client.resolveConflict(conflict.id, resolution).catch(tell);
      part('title').focus();
      await sync();
    });
    box.append(button);
  }
}

/** @param {string} name @param {any} value */
function wording(name, value) {
  return name === 'done' ? (value ? 'bought' : 'still to buy') : String(value);
}

// -- what is done

/** @param {'create' | 'update' | 'delete'} type @param {string | undefined} instanceId @param {Record<string, any>} [data] */
async function change(type, instanceId, data) {
  part('fault').hidden = true;
  await client.queueOfflineAction({ type, modelId: MODEL, instanceId, data });
  await sync();
}

/** Send what waits. Who asks meanwhile is served by one more run. */
async function sync() {
  isSyncWanted = true;
  if (isSyncing) return;
  isSyncing = true;
  clearTimeout(retry);
  try {
    while (isSyncWanted) {
      isSyncWanted = false;
      const { isOffline, remaining, conflicts: open } = await client.sync();
      conflicts = new Map(open.map((conflict) => [conflict.instance_id, conflict]));
      await show();
      const changes = `${remaining} ${remaining === 1 ? 'change waits' : 'changes wait'}`;
      say(isOffline ? `No node: ${remaining ? changes : 'you can go on'}` : open.length ? 'Your decision is needed' : 'Up to date');
      if (isOffline) retry = setTimeout(sync, RETRY_MS);
    }
  } catch (error) {
    if (error instanceof Unauthorized) await welcome();
    else tell(error);
  } finally {
    isSyncing = false;
  }
}

/** Keep copies of everything that the node has, and forget what it has no longer. */
async function readAll() {
  const items = await client.query(MODEL);
  const ids = new Set(items.map(({ id }) => id));
  for (const { id, version } of await client.queryLocal(MODEL)) {
    if (!ids.has(id) && version !== undefined) await client.clearLocalData(id);
  }
  for (const item of items) await client.storeLocally(MODEL, item.id, item);
}

/** @param {any} event */
async function hear({ type, instanceId, data }) {
  if (type === 'resync') await readAll();
  else if (type === 'create' && data) await client.storeLocally(MODEL, instanceId, data);
  await sync();
}

async function begin() {
  part('account').hidden = true;
  part('list').hidden = false;
  await show();
  await sync();
  await subscription?.close();
  subscription = await client.subscribe(MODEL, hear, { durable: MODEL });
}

// -- who is there

async function welcome() {
  part('list').hidden = true;
  part('account').hidden = false;
  part('node').textContent = node;
  say('Nobody is signed in');
}

part('account').addEventListener('submit', async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  part('fault').hidden = true;
  const given = new FormData(part('account'));
  const [email, password] = ['email', 'password'].map((name) => String(given.get(name)));
  try {
    if (/** @type {HTMLButtonElement} */ (event.submitter)?.name === 'new') {
      await client.auth.register({ email, password, username: email });
    }
    await client.auth.login({ email, password });
    await client.defineModel(MODEL, { fields: FIELDS, validators: VALIDATORS });
    await readAll();
    await begin();
  } catch (error) {
    tell(error);
  }
});

part('add').addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const title = part('title').value.trim();
  part('add').reset();
  if (title) change('create', undefined, { title, done: false, added: new Date() });
});

part('leave').addEventListener('click', async () => {
  await client.auth.logout().catch(() => {}); // also where no node hears of it
  await client.clearLocalData();
  location.reload();
});

client.watchLocal(MODEL, async ({ reason, error }) => {
  if (reason === 'reverted' && error) tell(error);
  await show();
});
addEventListener('online', sync);

const kept = localStorage.getItem('tokens');
if (kept) {
  client.auth.use(JSON.parse(kept));
  await begin();
} else await welcome();
