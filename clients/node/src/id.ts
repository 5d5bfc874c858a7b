/**
 * Ids: what is accepted as one, and its text.
 *
 * Does not know the formats of a schema. The server checks those.
 */

/** An id: a text, a bigint, or an object with `toHexString()`, such as an ObjectId or a UUID of `bson`. */
export type Id = string | bigint | { toHexString(): string }

/** The longest id, in UTF-16 units. The server accepts at most 1,024 bytes, so a longer id is never valid. */
export const ID_LENGTH_MAX = 1024

/** A value that is no id, because of its type. A TypeError, because the calling code has to change. */
export class NotAnId extends TypeError {
  override name = 'TypeError'
}

/** The text of an id. `what` names the id in the error. Throws a TypeError for every other value. */
export function idText(id: unknown, what: string): string {
  if (typeof id === 'string') return id
  if (typeof id === 'bigint') return id.toString()
  if (typeof id === 'object' && id !== null && 'toHexString' in id && typeof id.toHexString === 'function') {
    const text: unknown = id.toHexString()
    if (typeof text === 'string' && text !== '') return text
  }
  throw new NotAnId(`${what} must be a string, a bigint, or an object with toHexString(): this is ${described(id)}`)
}

/** Why a text cannot be sent, or undefined if it can. */
export function flaw(text: string): string | undefined {
  if (text.length > ID_LENGTH_MAX) return `longer than ${ID_LENGTH_MAX} bytes`
  // UTF-8 cannot express half of a surrogate pair. It would be sent as another text.
  return text.isWellFormed() ? undefined : 'not well-formed Unicode'
}

/** What a value is, without its contents. */
function described(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number') return 'a number: pass a bigint or a string, which keep every digit'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return `an object (${(value.constructor as { name?: string } | undefined)?.name ?? 'no class'})`
  return typeof value === 'undefined' ? 'undefined' : `a ${typeof value}`
}
