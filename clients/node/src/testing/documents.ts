/** Documents of a test, written as the server reads them: one file for each collection, Extended JSON in each line. */

import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { extended } from '../extended.js'

/** Writes the documents of one collection. The server sees either all of them or the earlier ones. */
export function writeCollection(directory: string, collection: string, documents: readonly object[]): void {
  if (!/^[\w.-]+$/.test(collection)) throw new TypeError('the name of a collection has only letters, digits, dots, dashes and underscores')
  mkdirSync(directory, { recursive: true })
  const path = join(directory, `${collection}.jsonl`)
  writeFileSync(`${path}.new`, documents.map((document) => `${JSON.stringify(extended(document))}\n`).join(''))
  renameSync(`${path}.new`, path)
}
