/** Documents of a test, written as the server reads them: one file for each collection, Extended JSON in each line. */

import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Writes the documents of one collection. The server sees either all of them or the earlier ones. */
export function writeCollection(directory: string, collection: string, documents: readonly object[]): void {
  if (!/^[\w.-]+$/.test(collection)) throw new TypeError('the name of a collection has only letters, digits, dots, dashes and underscores')
  mkdirSync(directory, { recursive: true })
  const path = join(directory, `${collection}.jsonl`)
  writeFileSync(`${path}.new`, documents.map((document) => `${JSON.stringify(extended(document))}\n`).join(''))
  renameSync(`${path}.new`, path)
}

/** A value as Extended JSON. */
function extended(value: unknown): unknown {
  if (value instanceof Date) return { $date: value.toISOString() }
  if (typeof value === 'bigint') return { $numberLong: value.toString() }
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(extended)
  if ('toHexString' in value && typeof value.toHexString === 'function') {
    const text = String(value.toHexString())
    return text.length === 24 ? { $oid: text } : { $uuid: text }
  }
  // The other types of bson.
  if ('_bsontype' in value && 'toExtendedJSON' in value && typeof value.toExtendedJSON === 'function') return value.toExtendedJSON()
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, extended(part)]))
}
