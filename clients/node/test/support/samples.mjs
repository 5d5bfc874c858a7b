// The documents of examples/fylora in a database of their own, and a server over them.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import mongoose from 'mongoose'
import { startPermcached } from 'permcached/testing'

const { EJSON } = mongoose.mongo.BSON ?? {}
export const repository = fileURLToPath(new URL('../../../../', import.meta.url))
export const samples = join(repository, 'examples/fylora')
export const schema = join(repository, 'schemas/fylora-sharing.toml')

// Bob may read SHARED but not PRIVATE. Zoé may read neither. DELETED is deleted.
export const ALICE = 'a11ce0000000000000000001'
export const BOB = 'b0b000000000000000000002'
export const ZOE = '20e000000000000000000006'
export const SHARED = 'f11e00000000000000000002'
export const PRIVATE = 'f11e00000000000000000001'
export const DELETED = 'f11e00000000000000000006'
export const NOWHERE = 'f11e000000000000000000ff'
export const NONSENSE = 'no id'
// The public link of holiday.jpg.
export const HOLIDAY = 'f11e00000000000000000007'
export const HOLIDAY_LINK = 'a0000000-0000-4000-8000-00000000000d'

let databases = 0

/** A database with the samples. `close` drops it. */
export async function sampleDatabase() {
  databases += 1
  const name = `app_${process.pid}_${databases}`
  const client = new mongoose.mongo.MongoClient(`${process.env.TEST_MONGODB}/?replicaSet=rs0`)
  await client.connect()
  const database = client.db(name)
  for (const file of readdirSync(samples).filter((each) => each.endsWith('.jsonl'))) {
    const lines = readFileSync(join(samples, file), 'utf8').trim().split('\n')
    await database.collection(file.replace('.jsonl', '')).insertMany(lines.map((line) => EJSON.parse(line)))
  }
  return {
    database,
    client,
    uri: `${process.env.TEST_MONGODB}/${name}?replicaSet=rs0`,
    async close() {
      await database.dropDatabase()
      await client.close()
    },
  }
}

/** A server over the database, with Redis. */
export function serverOver({ uri }, options = {}) {
  const env = { REDIS_URL: process.env.TEST_REDIS, REDIS_SECRET: 'a'.repeat(64), ...options.env }
  return startPermcached({ schema, mongodbUri: uri, ...options, env, client: { defaultSubject: 'user', ...options.client } })
}

/** A server over the samples as files, without MongoDB and Redis. */
export function serverOverFiles(options = {}) {
  return startPermcached({ schema, documents: samples, ...options, client: { defaultSubject: 'user', ...options.client } })
}
