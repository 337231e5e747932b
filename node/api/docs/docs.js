// The API page: reads /openapi.json, shows every operation, and sends requests.
// Text reaches the page through textContent alone, so that no description can become markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const NO_BODY = new Set(["get", "delete"]);
const byId = (id) => document.getElementById(id);
const token = () => byId("token").value.trim();
let api = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// A description's text, with `code` in it shown as such.
function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? make("code", { text: part }) : part));
}

// Schemas.

function resolve(schema) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? api.components.schemas[name] ?? {} : schema ?? {};
}

function expand(schema, depth = 0) {
  schema = resolve(schema);
  if (depth > 5) return {};
  const out = { ...schema };
  if (out.properties) {
    out.properties = Object.fromEntries(
      Object.entries(out.properties).map(([name, inner]) => [name, expand(inner, depth + 1)]),
    );
  }
  if (out.items) out.items = expand(out.items, depth + 1);
  for (const key of ["anyOf", "oneOf", "allOf"]) {
    if (out[key]) out[key] = out[key].map((inner) => expand(inner, depth + 1));
  }
  return out;
}

function example(schema, depth = 0) {
  schema = resolve(schema);
  if (schema.example !== undefined) return schema.example;
  if (schema.examples?.length) return schema.examples[0];
  if (schema.default != null) return schema.default;
  if (schema.enum) return schema.enum[0];
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return example(choices.find((choice) => choice.type !== "null") ?? choices[0], depth + 1);
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (schema.properties && depth < 5) {
    const inner = Object.entries(schema.properties).filter(([, field]) => !resolve(field).readOnly);
    return Object.fromEntries(inner.map(([name, field]) => [name, example(field, depth + 1)]));
  }
  const now = new Date().toISOString();
  const texts = { date: now.slice(0, 10), "date-time": now, email: "ada@example.org" };
  return { string: texts[schema.format] ?? "", integer: 0, number: 0, boolean: false, array: [] }[type] ?? {};
}

// Sending.

function address(operation, form) {
  const url = new URL(operation.path, location.origin);
  let path = operation.path;
  for (const parameter of operation.parameters) {
    const value = form.elements[`${parameter.in}:${parameter.name}`]?.value ?? "";
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (parameter.in === "query" && value !== "") url.searchParams.set(parameter.name, value);
  }
  return path + url.search;
}

function requestOf(operation, form) {
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (form.elements.match?.value) headers["If-Match"] = form.elements.match.value;
  const body = form.elements.body?.value;
  if (body) headers["Content-Type"] = form.elements.body.dataset.type;
  return { method: operation.method.toUpperCase(), headers, body: body || undefined };
}

function asCurl(target, request) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl", "-i", "-X", request.method, quote(location.origin + target)];
  for (const [name, value] of Object.entries(request.headers)) {
    const shown = name === "Authorization" ? "Bearer $TOKEN" : value;
    parts.push("-H", name === "Authorization" ? `"${name}: ${shown}"` : quote(`${name}: ${shown}`));
  }
  if (request.body) parts.push("-d", quote(request.body));
  return parts.join(" ");
}

async function send(operation, form, output) {
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  output.replaceChildren(make("p", { text: "Sending …" }));
  const began = performance.now();
  try {
    const response = await fetch(address(operation, form), requestOf(operation, form));
    const text = await response.text();
    const tookMs = Math.round(performance.now() - began);
    output.replaceChildren(...outcome(response, text, tookMs));
  } catch (error) {
    output.replaceChildren(make("p", { class: "outcome bad", text: `No answer: ${error.message}` }));
  } finally {
    button.disabled = false;
  }
}

function outcome(response, text, tookMs) {
  let shown = text;
  let content = null;
  try {
    content = JSON.parse(text);
    shown = JSON.stringify(content, null, 2);
  } catch { /* not JSON: shown as it is */ }
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  const line = `${response.status} ${response.statusText} in ${tookMs} ms`;
  const parts = [make("p", { class: response.ok ? "outcome" : "outcome bad", text: line })];
  if (typeof content?.token === "string") {
    const take = () => useToken(content.token);
    parts.push(make("button", { type: "button", class: "quiet", text: "Use this token", onclick: take }));
  }
  if (shown) parts.push(make("pre", { tabindex: "0", "aria-label": "Body of the answer", text: shown }));
  const more = make("details", { class: "schema" }, make("summary", { text: "Headers" }), make("pre", { text: headers }));
  return [...parts, more];
}

function listen(operation, form, output) {
  const log = make("pre", { tabindex: "0", "aria-label": "Messages" });
  const message = make("textarea", { "aria-label": "Message to send" });
  const url = new URL(address(operation, form), location.origin);
  url.protocol = url.protocol.replace("http", "ws");
  if (token() && !url.searchParams.has("token")) url.searchParams.set("token", token());
  const socket = new WebSocket(url);
  const note = (text) => { log.textContent += `${text}\n`; log.scrollTop = log.scrollHeight; };
  socket.onopen = () => note("— open");
  socket.onmessage = (event) => note(`< ${event.data}`);
  socket.onclose = (event) => note(`— closed (${event.code} ${event.reason})`);
  const push = () => { socket.send(message.value); note(`> ${message.value}`); };
  output.replaceChildren(
    log,
    message,
    make(
      "div",
      { class: "actions" },
      make("button", { type: "button", text: "Send message", onclick: push }),
      make("button", { type: "button", class: "quiet", text: "Close", onclick: () => socket.close() }),
    ),
  );
}

// The page.

function field(parameter, slug) {
  const schema = resolve(parameter.schema);
  const id = `${slug}-${parameter.in}-${parameter.name}`;
  const name = `${parameter.in}:${parameter.name}`;
  const hint = [parameter.description, schema.default != null ? `default ${schema.default}` : ""].filter(Boolean).join("; ");
  const described = hint ? `${id}-hint` : null;
  const common = { id, name, required: parameter.required, "aria-describedby": described };
  const input = schema.enum
    ? make("select", common, ...["", ...schema.enum].map((one) => make("option", { value: one, text: one })))
    : make("input", { ...common, autocomplete: "off", spellcheck: "false" });
  const label = make("label", { for: id, class: parameter.required ? "required" : null, text: parameter.name });
  const row = make("div", { class: "field" }, label, input);
  if (hint) row.append(make("span", { class: "hint", id: described, text: hint }));
  return row;
}

function schemaView(title, schema) {
  const text = JSON.stringify(expand(schema), null, 2);
  return make("details", { class: "schema" }, make("summary", {}, ...prose(title)), make("pre", { tabindex: "0", text }));
}

function inside(operation) {
  const { slug, spec } = operation;
  const output = make("div", { "aria-live": "polite" });
  const form = make("form", { "aria-label": `${operation.method} ${operation.path}` });
  if (spec.description) form.append(make("p", {}, ...prose(spec.description)));
  if (operation.parameters.length) form.append(make("h3", { text: "Parameters" }), ...operation.parameters.map((one) => field(one, slug)));
  if (["put", "patch", "delete"].includes(operation.method)) {
    form.append(
      make("div", { class: "field" }, make("label", { for: `${slug}-match`, text: "If-Match" }), make("input", { id: `${slug}-match`, name: "match", autocomplete: "off" })),
    );
  }
  const [[type, content] = []] = Object.entries(spec.requestBody?.content ?? {});
  if (type && !(NO_BODY.has(operation.method) && !content)) {
    const area = make("textarea", { id: `${slug}-body`, name: "body", spellcheck: "false", "data-type": type });
    if (type === "application/json") area.value = JSON.stringify(example(content.schema), null, 2);
    form.append(make("h3", {}, make("label", { for: `${slug}-body`, text: `Body, ${type}` })), area, schemaView("Schema of the body", content.schema));
  }
  const isSocket = "101" in spec.responses;
  const actions = make("div", { class: "actions" }, make("button", { type: "submit", text: isSocket ? "Connect" : "Send" }));
  if (!isSocket) {
    const show = () => output.replaceChildren(make("pre", { tabindex: "0", text: asCurl(address(operation, form), requestOf(operation, form)) }));
    actions.append(make("button", { type: "button", class: "quiet", text: "Show as curl", onclick: show }));
  }
  form.append(actions);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isSocket) listen(operation, form, output);
    else send(operation, form, output);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const answers = Object.entries(spec.responses).map(([status, answer]) => {
    const named = answer.$ref ? api.components.responses[answer.$ref.split("/").pop()] : answer;
    const schema = Object.values(named.content ?? {})[0]?.schema;
    return schema ? schemaView(`${status} ${named.description}`, schema) : make("p", { class: "about", text: `${status} ${named.description}` });
  });
  return [form, output, make("h3", { text: "Answers" }), ...answers];
}

function locked(spec) {
  const security = spec.security ?? [];
  if (!security.length) return "";
  return security.some((one) => !Object.keys(one).length) ? "token optional" : "token needed";
}

function view(operation) {
  const { slug, spec, method, path } = operation;
  const body = make("div", { class: "inside" });
  const summary = make(
    "summary",
    {},
    make("span", { class: `method ${method}`, text: method.toUpperCase() }),
    make("span", { class: "path", text: path }),
    make("span", { class: spec.deprecated ? "about deprecated" : "about", text: spec.summary }),
    make("span", { class: "lock", text: locked(spec) }),
  );
  const box = make("details", { class: "operation", id: slug }, summary, body);
  box.addEventListener("toggle", () => {
    if (box.open && !body.childElementCount) body.append(...inside(operation));
  });
  return box;
}

function operationsOf(document_) {
  return Object.entries(document_.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({
      path,
      method,
      spec: item[method],
      slug: item[method].operationId,
      parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])],
    })),
  );
}

function show() {
  byId("version").textContent = api.info.version;
  const operations = operationsOf(api);
  const main = byId("operations");
  const contents = byId("contents");
  main.replaceChildren(make("p", { id: "notice", role: "status" }, ...prose(api.info.description)));
  contents.replaceChildren();
  for (const tag of api.tags ?? []) {
    const members = operations.filter((operation) => operation.spec.tags?.[0] === tag.name);
    if (!members.length) continue;
    const links = members.map((operation) => {
      const link = make(
        "a",
        { href: `#${operation.slug}` },
        make("span", { class: `method ${operation.method}`, text: `${operation.method.toUpperCase()} ` }),
        operation.path,
      );
      const words = `${operation.method} ${operation.path} ${operation.spec.summary} ${tag.name}`;
      return make("li", { "data-words": words.toLowerCase() }, link);
    });
    contents.append(make("section", {}, make("h2", { text: tag.name }), make("ul", {}, ...links)));
    main.append(make("h2", { text: tag.name }), ...members.map(view));
  }
  reveal();
}

function reveal() {
  const box = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (!box || box.tagName !== "DETAILS") return;
  box.open = true;
  box.querySelector("summary").focus();
}

async function load() {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let response = await fetch("/openapi.json", { headers });
  let problem = "";
  if (response.status === 401) {
    problem = "The token does not count (any more). ";
    response = await fetch("/openapi.json");
  }
  const content = await response.json();
  if (response.ok) {
    api = content;
    show();
    byId("notice").prepend(problem);
  } else {
    byId("notice").textContent = `The description was refused: ${content.error}`;
  }
}

function useToken(text) {
  byId("token").value = text;
  sessionStorage.setItem("token", text);
  load();
}

function colour() {
  const chosen = byId("theme").value;
  const isDark = chosen === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "dark";
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
}

byId("theme").value = localStorage.getItem("theme") ?? "auto";
byId("theme").addEventListener("change", () => {
  localStorage.setItem("theme", byId("theme").value);
  colour();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colour);
colour();

byId("token").value = sessionStorage.getItem("token") ?? "";
byId("session").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(token());
});
byId("search").addEventListener("input", () => {
  const wanted = byId("search").value.toLowerCase().split(/\s+/);
  for (const item of byId("contents").querySelectorAll("li")) {
    item.hidden = !wanted.every((word) => item.dataset.words.includes(word));
  }
  for (const section of byId("contents").querySelectorAll("section")) {
    section.hidden = !section.querySelector("li:not([hidden])");
  }
});
addEventListener("hashchange", reveal);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    event.preventDefault();
    byId("search").focus();
  }
});
load().catch((error) => { byId("notice").textContent = `The description could not be loaded: ${error.message}`; });
