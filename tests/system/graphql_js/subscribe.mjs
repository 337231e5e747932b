// Prints the first events of a subscription as JSON: node subscribe.mjs URL QUERY CURSOR COUNT < token
import { readFileSync } from 'node:fs';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const [url, query, cursor, count] = process.argv.slice(2);
const token = readFileSync(0, 'utf8').trim();
const client = createClient({ url, webSocketImpl: WebSocket, connectionParams: { token }, retryAttempts: 0 });
const events = [];
for await (const event of client.iterate({ query, variables: { cursor } })) {
  events.push(event);
  if (events.length === Number(count)) break;
}
const answers = [];
for await (const answer of client.iterate({ query: '{ _models }' })) answers.push(answer);
console.log(JSON.stringify({ events, answers }));
await client.dispose();
