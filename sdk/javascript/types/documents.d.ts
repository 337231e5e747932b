/**
 * An instance of a model. What is `hidden` can be read and is not listed.
 *
 * @param {object} prototype
 * @param {Document} content
 * @param {Document} [hidden]
 * @returns {Document}
 */
export function instanceOf(prototype: object, content: Document, hidden?: Document): Document;
/**
 * The fields of a document without what the node added.
 *
 * @param {Document} document
 * @returns {Document}
 */
export function fieldsOf(document: Document): Document;
/**
 * Those members of `after` that are others in `before`.
 *
 * @param {Document} before
 * @param {Document} after
 * @returns {Document}
 */
export function changedFields(before: Document, after: Document): Document;
/**
 * Whether two values are the same as JSON; undefined and null are.
 *
 * @param {any} one
 * @param {any} other
 * @returns {boolean}
 */
export function isSame(one: any, other: any): boolean;
/** A key that no other request, action or instance has. @returns {string} */
export function newKey(): string;
/**
 * What JSON keeps of a value: moments as text, sets as lists.
 *
 * @template T
 * @param {T} value
 * @returns {T}
 */
export function asJson<T>(value: T): T;
/** @param {any} value @returns {string} */
export function toJson(value: any): string;
/**
 * Instances as an app holds them, and models as far as this library needs to know them.
 *
 * Room: plain values. An instance has its fields as own properties; the methods that `extendModel` gave its model,
 * and the seed's spellings `createdAt`, `updatedAt`, `createdBy` and `timestamp`, come from its prototype.
 */
/** @typedef {Record<string, any>} Document */
/** What the node adds to the fields of a model. */
export const META_FIELDS: string[];
/** What every instance answers to beside its own fields. */
export const INSTANCE: any;
/** The types of a model's fields; empty where the definition could not be read. */
export class ModelShape {
    /** @param {{name: string, fields: {name: string, type: string}[]}} definition */
    static of(definition: {
        name: string;
        fields: {
            name: string;
            type: string;
        }[];
    }): ModelShape;
    /** @param {string} name @param {Record<string, string>} [fields] */
    constructor(name: string, fields?: Record<string, string>);
    name: string;
    fields: Record<string, string>;
    /**
     * A field as the node calls it: `createdAt` is `created_at`, unless the model has a `createdAt`.
     *
     * @param {string} name
     */
    spelt(name: string): string;
}
export type Document = Record<string, any>;
