/**
 * What a node can be asked of a filter. `text` undefined lets everything through; without `isExact`, answers are to
 * be judged by `matches`; `isEmpty` says that no document can match.
 *
 * @param {Filter | null | undefined} filter
 * @param {ModelShape} model
 * @returns {{text?: string, isExact: boolean, isEmpty?: boolean}}
 * @throws {BadRequest} for an operator that is unknown
 */
export function translate(filter: Filter | null | undefined, model: ModelShape): {
    text?: string;
    isExact: boolean;
    isEmpty?: boolean;
};
/** @param {any} filter @param {string} [where] @throws {BadRequest} naming what is no filter */
export function check(filter: any, where?: string): void;
/**
 * Whether a document meets a filter, in full.
 *
 * @param {Filter | null | undefined} filter
 * @param {Record<string, any>} document
 * @param {ModelShape} model
 * @returns {boolean}
 */
export function matches(filter: Filter | null | undefined, document: Record<string, any>, model: ModelShape): boolean;
/**
 * The fields to sort by, each with whether it falls.
 *
 * @param {Record<string, number> | undefined} sort
 * @param {ModelShape} model
 * @returns {[string, boolean][]}
 * @throws {BadRequest}
 */
export function sortKeys(sort: Record<string, number> | undefined, model: ModelShape): [string, boolean][];
/**
 * Documents by several fields; what has no value comes first when rising, as a node has it.
 *
 * @param {Record<string, any>[]} documents
 * @param {[string, boolean][]} keys
 */
export function inOrder(documents: Record<string, any>[], keys: [string, boolean][]): Record<string, any>[];
/**
 * The fields that a projection leaves, undefined for all.
 *
 * @param {Record<string, any> | undefined} projection
 * @param {ModelShape} model
 * @returns {string[] | undefined}
 * @throws {BadRequest} where it both shows and hides
 */
export function projected(projection: Record<string, any> | undefined, model: ModelShape): string[] | undefined;
export type Filter = Record<string, any>;
/**
 * conditions that must all hold
 */
export type Group = string[];
/**
 * groups of which any must hold
 */
export type Said = {
    groups: Group[];
    isExact: boolean;
};
import { ModelShape } from './documents.js';
