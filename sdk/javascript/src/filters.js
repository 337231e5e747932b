/**
 * Filters as MongoDB writes them, said in a node's filter language and judged here.
 *
 * Room: pure functions. `translate` says as much of a filter as a node can be asked, `matches` judges a document by
 * all of it. What a node cannot be asked (`$regex`, `$exists`, null, …) is judged here, over what it answers; so a
 * translation lets through at least what the filter does.
 */

import { ModelShape, isSame } from './documents.js';
import { BadRequest } from './errors.js';

/** @typedef {Record<string, any>} Filter */
/** @typedef {string[]} Group conditions that must all hold */
/** @typedef {{groups: Group[], isExact: boolean}} Said groups of which any must hold */

const CONDITIONS_MAX = 64; // what a node takes in one filter
const SIZE_MAX_BYTES = 8192;
/** @type {Record<string, string>} */
const COMPARISONS = { $eq: 'eq', $ne: 'ne', $gt: 'gt', $gte: 'gte', $lt: 'lt', $lte: 'lte', $like: 'like' };
/** @type {Record<string, string>} */
const OPPOSITE = { $eq: '$ne', $ne: '$eq', $in: '$nin', $nin: '$in' };
const OPERATORS = new Set([
  ...Object.keys(COMPARISONS), '$in', '$nin', '$exists', '$regex', '$options', '$not', '$all', '$size',
]);
const ORDERLESS = new Set(['json', 'array']); // fields that a node does not filter by

/**
 * What a node can be asked of a filter. `text` undefined lets everything through; without `isExact`, answers are to
 * be judged by `matches`; `isEmpty` says that no document can match.
 *
 * @param {Filter | null | undefined} filter
 * @param {ModelShape} model
 * @returns {{text?: string, isExact: boolean, isEmpty?: boolean}}
 * @throws {BadRequest} for an operator that is unknown
 */
export function translate(filter, model) {
  if (!filter || Object.keys(filter).length === 0) return { isExact: true };
  check(filter);
  const { groups, isExact } = groupsOf(filter, model, false);
  if (groups.length === 0) return { isExact: true, isEmpty: true };
  if (groups.some((group) => group.length === 0)) return { isExact };
  const text = groups.map((group) => group.join(',')).join('|');
  const count = groups.reduce((sum, group) => sum + group.length, 0);
  if (count > CONDITIONS_MAX || sizeOf(text) > SIZE_MAX_BYTES) {
    return { text: asMuchAsFits(filter, model), isExact: false };
  }
  return { text, isExact };
}

/** @param {string} text */
const sizeOf = (text) => new TextEncoder().encode(text).length;

/** @param {string} where @param {string} fault @returns {never} */
function refuse(where, fault) {
  throw new BadRequest('The filter is not valid', { details: { [where]: fault } });
}

/** @param {any} filter @param {string} [where] @throws {BadRequest} naming what is no filter */
export function check(filter, where = 'filter') {
  if (!isObject(filter)) refuse(where, 'Must be an object');
  for (const [name, wanted] of Object.entries(filter)) {
    if (name === '$and' || name === '$or' || name === '$nor') {
      if (!Array.isArray(wanted) || wanted.length === 0) refuse(name, 'Must be a list of filters');
      for (const part of wanted) check(part, name);
    } else if (name.startsWith('$')) refuse(name, 'Unknown operator');
    else if (isOperators(wanted)) checkOperators(name, wanted);
  }
}

/** @param {string} name @param {Filter} operators */
function checkOperators(name, operators) {
  for (const [operator, operand] of Object.entries(operators)) {
    if (!OPERATORS.has(operator)) refuse(name, `Unknown operator ${operator}`);
    if (['$in', '$nin', '$all'].includes(operator) && !Array.isArray(operand)) refuse(name, `${operator} takes a list`);
    if (operator === '$not') {
      if (!isOperators(operand)) refuse(name, '$not takes operators');
      checkOperators(name, operand);
    }
  }
}

/** @param {any} value */
function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}

/** @param {any} wanted */
function isOperators(wanted) {
  if (!isObject(wanted) || wanted instanceof RegExp) return false;
  const names = Object.keys(wanted);
  return names.length > 0 && names.every((name) => name.startsWith('$'));
}

/** What a condition asks, as operators. @param {any} wanted @returns {Filter} */
function operatorsOf(wanted) {
  if (wanted instanceof RegExp) return { $regex: wanted };
  return isOperators(wanted) ? wanted : { $eq: wanted };
}

// -- to a node's language

/** @param {Filter} filter @param {ModelShape} model @param {boolean} negated @returns {Said} */
function groupsOf(filter, model, negated) {
  const parts = Object.entries(filter).map(([name, wanted]) => part(name, wanted, model, negated));
  return negated ? anyOf(parts) : allOf(parts);
}

/** @param {string} name @param {any} wanted @param {ModelShape} model @param {boolean} negated @returns {Said} */
function part(name, wanted, model, negated) {
  if (name === '$nor') {
    name = '$or';
    negated = !negated;
  }
  if (name === '$and' || name === '$or') {
    const parts = wanted.map((/** @type {Filter} */ each) => groupsOf(each, model, negated));
    return (name === '$and') !== negated ? allOf(parts) : anyOf(parts);
  }
  const parts = Object.entries(operatorsOf(wanted)).map(([operator, operand]) =>
    operator === '$not' ? part(name, operand, model, !negated) : condition(name, operator, operand, model, negated),
  );
  return negated ? anyOf(parts) : allOf(parts);
}

/** @param {Said[]} parts @returns {Said} */
function allOf(parts) {
  const count = parts.reduce((product, { groups }) => product * groups.length, 1);
  if (count > CONDITIONS_MAX) {
    const short = parts.filter(({ groups }) => groups.length === 1);
    return { groups: [short.flatMap(({ groups }) => groups[0])], isExact: false };
  }
  /** @type {Group[]} */
  let joined = [[]];
  for (const { groups } of parts) joined = joined.flatMap((left) => groups.map((right) => [...left, ...right]));
  return { groups: joined, isExact: parts.every(({ isExact }) => isExact) };
}

/** @param {Said[]} parts @returns {Said} */
function anyOf(parts) {
  return { groups: parts.flatMap(({ groups }) => groups), isExact: parts.every(({ isExact }) => isExact) };
}

/**
 * One question about one field: a group of one condition, or of none where a node cannot be asked.
 *
 * @param {string} name @param {string} operator @param {any} operand @param {ModelShape} model
 * @param {boolean} negated @returns {Said}
 */
function condition(name, operator, operand, model, negated) {
  const unsaid = { groups: [[]], isExact: false };
  if (negated) {
    if (!Object.hasOwn(OPPOSITE, operator)) return unsaid; // the opposite of "greater" includes what has no value
    operator = OPPOSITE[operator];
  }
  const field = model.spelt(name);
  const kind = model.fields[field];
  if (field.includes('.') || ORDERLESS.has(kind)) return unsaid;
  if (operator === '$in' || operator === '$nin') {
    if (operand.length === 0) return { groups: operator === '$in' ? [] : [[]], isExact: true };
    const values = operand.map((/** @type {any} */ value) => said(value, kind));
    if (values.includes(undefined)) return unsaid;
    return { groups: [[`${field}:${operator.slice(1)}:${values.join(';')}`]], isExact: true };
  }
  const value = Object.hasOwn(COMPARISONS, operator) ? said(operand, kind) : undefined;
  if (value === undefined) return unsaid;
  return { groups: [[`${field}:${COMPARISONS[operator]}:${value}`]], isExact: true };
}

/** A value in the filter language; undefined if it cannot be said. @param {any} value @param {string} [kind] */
function said(value, kind) {
  if (value instanceof Date) value = moment(value, kind === 'date');
  if (typeof value === 'boolean' || typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return Number.isFinite(value) ? String(value) : undefined;
  if (typeof value !== 'string') return undefined;
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}

/** @param {Date} value @param {boolean} isDay */
function moment(value, isDay) {
  return isDay ? value.toISOString().slice(0, 10) : value.toISOString();
}

/** The plain conditions of the outermost level, as many as a node takes. @param {Filter} filter @param {ModelShape} model */
function asMuchAsFits(filter, model) {
  /** @type {string[]} */
  const kept = [];
  for (const [name, wanted] of Object.entries(filter)) {
    if (name.startsWith('$')) continue;
    const { groups } = part(name, wanted, model, false);
    if (groups.length !== 1) continue;
    for (const each of groups[0]) {
      if (kept.length < CONDITIONS_MAX && sizeOf([...kept, each].join(',')) <= SIZE_MAX_BYTES) kept.push(each);
    }
  }
  return kept.length ? kept.join(',') : undefined;
}

// -- judged here

/**
 * Whether a document meets a filter, in full.
 *
 * @param {Filter | null | undefined} filter
 * @param {Record<string, any>} document
 * @param {ModelShape} model
 * @returns {boolean}
 */
export function matches(filter, document, model) {
  return Object.entries(filter ?? {}).every(([name, wanted]) => {
    /** @param {Filter} each */
    const met = (each) => matches(each, document, model);
    if (name === '$and') return wanted.every(met);
    if (name === '$or') return wanted.some(met);
    if (name === '$nor') return !wanted.some(met);
    return meets(valueAt(document, model.spelt(name)), operatorsOf(wanted));
  });
}

/** @param {any} document @param {string} path */
function valueAt(document, path) {
  let value = document;
  for (const step of path.split('.')) {
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, step)) return undefined;
    value = value[step];
  }
  return value;
}

/** @param {any} value @param {Filter} operators @returns {boolean} */
function meets(value, operators) {
  return Object.entries(operators).every(([operator, operand]) => {
    switch (operator) {
      case '$eq': return equal(value, operand);
      case '$ne': return !equal(value, operand);
      case '$in': return operand.some((/** @type {any} */ each) => equal(value, each));
      case '$nin': return !operand.some((/** @type {any} */ each) => equal(value, each));
      case '$exists': return (value !== undefined && value !== null) === Boolean(operand);
      case '$not': return !meets(value, operand);
      case '$regex': return typeof value === 'string' && new RegExp(operand, operators.$options).test(value);
      case '$like': return typeof value === 'string' && likeness(String(operand)).test(value);
      case '$all': return Array.isArray(value) && operand.every((/** @type {any} */ each) => equal(value, each));
      case '$size': return Array.isArray(value) && value.length === operand;
      case '$options': return true;
    }
    const order = compare(value, sameForm(value, operand));
    if (order === undefined) return false;
    return { $gt: order > 0, $gte: order >= 0, $lt: order < 0, $lte: order <= 0 }[operator] ?? false;
  });
}

/** @param {string} pattern */
function likeness(pattern) {
  const parts = pattern.split('%').map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('[^]*')}$`, 'iu');
}

/** @param {any} value @param {any} operand @returns {boolean} */
function equal(value, operand) {
  if (Array.isArray(value) && !Array.isArray(operand)) return value.some((each) => equal(each, operand));
  return isSame(value, sameForm(value, operand));
}

/** A moment in the form in which a node writes it. @param {any} value @param {any} operand */
function sameForm(value, operand) {
  return operand instanceof Date ? moment(operand, typeof value === 'string' && value.length === 10) : operand;
}

/** -1, 0 or 1; undefined where the two have no order between them. @param {any} one @param {any} other */
function compare(one, other) {
  if (typeof one !== typeof other || (typeof one !== 'string' && typeof one !== 'number')) return undefined;
  return one < other ? -1 : Number(one > other);
}

// -- order and projection

/**
 * The fields to sort by, each with whether it falls.
 *
 * @param {Record<string, number> | undefined} sort
 * @param {ModelShape} model
 * @returns {[string, boolean][]}
 * @throws {BadRequest}
 */
export function sortKeys(sort, model) {
  return Object.entries(sort ?? {}).map(([name, direction]) => {
    if (direction !== 1 && direction !== -1) {
      throw new BadRequest('The sort is not valid', { details: { [name]: 'Must be 1 or -1' } });
    }
    return [model.spelt(name), direction === -1];
  });
}

/**
 * Documents by several fields; what has no value comes first when rising, as a node has it.
 *
 * @param {Record<string, any>[]} documents
 * @param {[string, boolean][]} keys
 */
export function inOrder(documents, keys) {
  return [...documents].sort((one, other) => {
    for (const [name, falls] of keys) {
      const [a, b] = [one[name] ?? null, other[name] ?? null];
      const order = a === null || b === null ? Number(a !== null) - Number(b !== null) : (compare(a, b) ?? 0);
      if (order) return falls ? -order : order;
    }
    return 0;
  });
}

/**
 * The fields that a projection leaves, undefined for all.
 *
 * @param {Record<string, any> | undefined} projection
 * @param {ModelShape} model
 * @returns {string[] | undefined}
 * @throws {BadRequest} where it both shows and hides
 */
export function projected(projection, model) {
  const chosen = Object.entries(projection ?? {}).map(([name, wanted]) => [model.spelt(name), Boolean(wanted)]);
  const others = new Map(/** @type {[string, boolean][]} */ (chosen.filter(([name]) => name !== 'id')));
  if (others.size === 0) return undefined;
  if (new Set(others.values()).size > 1) {
    const details = { projection: 'Either fields to show, or to hide' };
    throw new BadRequest('The projection is not valid', { details });
  }
  if ([...others.values()][0]) return [...others.keys()];
  const every = [...Object.keys(model.fields), 'created_at', 'updated_at', 'created_by', 'version'];
  return every.filter((name) => !others.has(name));
}
