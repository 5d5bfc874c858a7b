// Measures checks of one Node.js process: how many a second, and the processor time of each in Node.js and in the server. Beside
// them, what they replace: a GET from Redis with JSON.parse, and a findOne of mongoose. All of it in one run, in turn, against
// servers on this machine.
//
//   node bench/bench.mjs
//
// PERMCACHED_PROGRAM, MONGOD and REDIS_SERVER name the servers; `make bench-node` sets them. BENCH_SECONDS is how long each
// measurement takes (3), BENCH_ROUNDS how often it is repeated (5). Use a quiet machine: other load distorts the numbers. Linux
// only, because the servers' processor time comes from /proc.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import mongoose from 'mongoose'
import { Permcached } from 'permcached'
import { startPermcached } from 'permcached/testing'
import { createClient } from 'redis'
import { freePort, startMongod, startRedis } from '../test/support/databases.mjs'

const SECONDS = Number(process.env.BENCH_SECONDS ?? 3)
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5)
/** How many files there are, and users who own them. */
const FILES = 20_000
const USERS = 1_000
/** How many checks are open at the same time. */
const IN_FLIGHT = 64
/** How many checks `checkAll` asks together. */
const TOGETHER = 1_000
/** Microseconds of a tick in /proc. */
const TICK_US = 10_000

const SCHEMA = `
default_subject = "user"
[subject.user]
[resource.file]
collection = "files"
[resource.file.relations]
owner = { field = "owner_id" }
[resource.file.permissions]
read = "owner"
`

const hex = (number) => number.toString(16).padStart(24, '0')
const fileOf = (number) => hex(number + 0x100000)
const userOf = (number) => hex((number % USERS) + 0x1)

/** A pseudorandom sequence, the same in every run. */
let state = 1
const next = (below) => (state = (state * 48_271) % 2_147_483_647) % below

/** A question, of which half are allowed. */
function question() {
  const file = next(FILES)
  return { user: userOf(next(2) === 0 ? file : file + 1), file: fileOf(file) }
}

/** The processor time of a process, in microseconds. */
function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_US
}

const scratch = mkdtempSync(join(tmpdir(), 'permcached-bench-'))
const closing = []
async function close() {
  for (const each of closing.reverse()) await each()
  rmSync(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}

async function prepare() {
  const { MONGOD, REDIS_SERVER, PERMCACHED_PROGRAM } = process.env
  if (!MONGOD || !REDIS_SERVER || !PERMCACHED_PROGRAM)
    throw new Error('MONGOD, REDIS_SERVER and PERMCACHED_PROGRAM are not set: use make bench-node')
  const mongod = await startMongod(MONGOD, join(scratch, 'mongod'), await freePort())
  closing.push(() => mongod.process.kill('SIGKILL'))
  const redis = await startRedis(REDIS_SERVER, join(scratch, 'redis'), await freePort())
  closing.push(() => redis.process.kill('SIGKILL'))

  await mongoose.connect(`${mongod.uri}/bench?replicaSet=rs0`)
  closing.push(() => mongoose.disconnect())
  const { ObjectId } = mongoose.mongo
  const File = mongoose.model('File', new mongoose.Schema({ owner_id: mongoose.ObjectId, name: String }))
  const all = Array.from({ length: FILES }, (_, number) => number)
  await File.collection.insertMany(
    all.map((number) => ({ _id: new ObjectId(fileOf(number)), owner_id: new ObjectId(userOf(number)), name: `file ${number}` })),
  )

  const server = await startPermcached({
    schema: SCHEMA,
    mongodbUri: `${mongod.uri}/bench?replicaSet=rs0`,
    env: { MAX_STALENESS: '10s', RUST_LOG: 'error,permcached::app=info' },
  })
  closing.push(() => server.stop())
  const client = (options) => {
    const permissions = new Permcached({
      target: server.target,
      token: server.token,
      defaultSubject: 'user',
      deadlineMs: 10_000,
      ...options,
    })
    closing.push(() => permissions.close())
    return permissions
  }

  const cache = createClient({ url: redis.uri })
  await cache.connect()
  closing.push(() => cache.destroy())
  // What a cache of checks has: four booleans for each user and file.
  const entry = (isOwner) => JSON.stringify({ read: isOwner, write: isOwner, delete: isOwner, share: isOwner })
  for (let from = 0; from < FILES; from += 1_000) {
    const batch = cache.multi()
    for (const number of all.slice(from, from + 1_000)) {
      batch.set(`perm:${userOf(number)}:file:${fileOf(number)}`, entry(true))
      batch.set(`perm:${userOf(number + 1)}:file:${fileOf(number)}`, entry(false))
    }
    await batch.exec()
  }
  return { server, client, cache, File, redis, mongod }
}

/** Keeps `IN_FLIGHT` checks open until the time is up. Returns how many there were. */
async function inFlight(check) {
  const end = performance.now() + SECONDS * 1_000
  let count = 0
  const worker = async () => {
    while (performance.now() < end) {
      await check()
      count += 1
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker))
  return count
}

async function together(permissions) {
  const end = performance.now() + SECONDS * 1_000
  let count = 0
  while (performance.now() < end) {
    const questions = Array.from({ length: TOGETHER }, () => {
      const { user, file } = question()
      return { subject: user, permission: 'read', resource: { type: 'file', id: file } }
    })
    const results = await permissions.checkAll(questions)
    if (results.some(({ error }) => error)) throw new Error('a check has no answer')
    count += results.length
  }
  return count
}

const median = (values) => [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)]

async function main() {
  const { server, client, cache, File, redis, mongod } = await prepare()
  const [separate, joined] = [client({ coalesce: false }), client({})]
  const serverPid = server.pid
  const ways = [
    { name: 'a call for each check', pid: serverPid, measure: () => inFlight(() => ask(separate)) },
    { name: 'joined in each turn of the event loop', pid: serverPid, measure: () => inFlight(() => ask(joined)) },
    { name: `checkAll of ${TOGETHER}`, pid: serverPid, measure: () => together(joined) },
    { name: 'GET from Redis, JSON.parse', pid: redis.process.pid, measure: () => inFlight(() => get(cache)) },
    { name: 'findOne of mongoose, lean', pid: mongod.process.pid, measure: () => inFlight(() => findOne(File, true)) },
    { name: 'findOne of mongoose', pid: mongod.process.pid, measure: () => inFlight(() => findOne(File, false)) },
  ]
  const results = new Map(ways.map(({ name }) => [name, []]))
  // The first round is not counted: it compiles, connects and reads facts.
  for (let round = 0; round <= ROUNDS; round += 1) {
    for (const { name, pid, measure } of ways) {
      const [cpu, other, begin] = [process.cpuUsage(), cpuOf(pid), performance.now()]
      const count = await measure()
      const seconds = (performance.now() - begin) / 1_000
      const { user, system } = process.cpuUsage(cpu)
      if (round > 0) results.get(name).push({ rate: count / seconds, node: (user + system) / count, server: (cpuOf(pid) - other) / count })
    }
  }
  const of = (name, part) => median(results.get(name).map((result) => result[part]))
  console.log(
    `Node.js ${process.version}, ${cpus().length} × ${cpus()[0].model}, ${IN_FLIGHT} checks in flight; medians of ${ROUNDS} × ${SECONDS} s\n`,
  )
  console.log('| | checks a second | µs of Node.js | µs of the server | checks a second of one core for Node.js |')
  console.log('|---|---|---|---|---|')
  for (const { name } of ways) {
    const [rate, node, own] = ['rate', 'node', 'server'].map((part) => of(name, part))
    console.log(`| ${name} | ${Math.round(rate)} | ${node.toFixed(1)} | ${own.toFixed(1)} | ${Math.round(1e6 / node)} |`)
  }
  const ratio = of(ways[0].name, 'node') / of(ways[1].name, 'node')
  const beside = of(ways[1].name, 'node') / of(ways[3].name, 'node')
  console.log(
    `\nJoined checks: ${ratio.toFixed(1)} × as many for a core of Node.js as a call for each, at ${beside.toFixed(2)} × the cost of a GET.`,
  )
}

async function ask(permissions) {
  const { user, file } = question()
  await permissions.can(user, 'read', 'file', file)
}

async function get(cache) {
  const { user, file } = question()
  const text = await cache.get(`perm:${user}:file:${file}`)
  if (text === null || typeof JSON.parse(text).read !== 'boolean') throw new Error('no entry')
}

async function findOne(File, isLean) {
  const { user, file } = question()
  const found = await (isLean ? File.findOne({ _id: file }).lean() : File.findOne({ _id: file }))
  return found !== null && String(found.owner_id) === user
}

try {
  await main()
} finally {
  await close()
}
