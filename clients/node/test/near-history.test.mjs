// Judges what a near cache answers while permissions change, instances are killed and frozen, and connections are stalled and cut.
//
// An answer may show any state of its share from the bound before the question until the answer. Anything else is a violation: above all an
// allow that was revoked more than the bound before the question. NEAR_HISTORY_SECONDS sets how long it runs. Requires Linux, where every
// address of 127.0.0.0/8 is this machine.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import mongoose from 'mongoose'
import { freePort, until } from './support/databases.mjs'
import { commonPort, nameServer } from './support/names.mjs'
import { proxyTo } from './support/proxy.mjs'

// Without this, grpc-js uses only the system's resolver, whatever name server the target names.
process.env.GRPC_NODE_USE_ALTERNATIVE_RESOLVER = 'true'
const { Permcached } = await import('permcached')
const { sampleDatabase, schema, ZOE, SHARED, PRIVATE } = await import('./support/samples.mjs')

const SECONDS = Number(process.env.NEAR_HISTORY_SECONDS ?? 14)
const BOUND_MS = 1_000
const ADDRESSES = ['127.0.0.11', '127.0.0.12']
// Neither she nor Zoé may read anything but by the shares of this test.
const ADA = 'ada000000000000000000008'
const TOKEN = 'a-secret-of-this-test-and-of-no-other'
const closing = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

/** An instance behind a proxy, whose address the client knows. */
class Instance {
  async start(uri) {
    this.port ??= await freePort()
    const args = ['serve', '--bind', '127.0.0.1', '--port', String(this.port), '--schema', schema]
    const env = {
      ...{ PATH: process.env.PATH, MONGODB_URI: uri, MAX_STALENESS: `${BOUND_MS}ms`, AUTH_ADMIN_TOKENS: `tests:${TOKEN}` },
      ...{ REDIS_URL: process.env.TEST_REDIS, REDIS_SECRET: 'c'.repeat(64) },
    }
    this.uri = uri
    this.process = spawn(process.env.PERMCACHED_PROGRAM, args, { env, stdio: 'ignore' })
    const ready = () =>
      fetch(`http://127.0.0.1:${this.port}/readyz`).then(
        (response) => response.ok,
        () => false,
      )
    await until('the instance to be ready', ready)
  }

  async kill() {
    const ended = new Promise((done) => this.process.once('close', done))
    this.process.kill('SIGKILL')
    await ended
  }
}

/** The states of one share, each with the times between which it began. The share does not exist at first. */
class Share {
  states = [{ granted: false, from: -Infinity, surely: -Infinity }]

  constructor(user, file) {
    Object.assign(this, { user, file })
  }

  /** Whether an answer is a state that the share had at some time from the bound before the question until the answer. */
  permits(allowed, asked, answered) {
    return this.states.some(({ granted, from }, index) => {
      const ended = this.states[index + 1]?.surely ?? Infinity
      return granted === allowed && from <= answered && ended >= asked - BOUND_MS
    })
  }
}

const random = (below) => Math.floor(Math.random() * below)
const id = (hex) => new mongoose.mongo.ObjectId(hex)

test(`no answer is older than the bound for ${SECONDS} s of writes and faults`, { timeout: (SECONDS + 100) * 1_000 }, async () => {
  const sample = await sampleDatabase()
  closing.push(() => sample.close())
  const shares = sample.database.collection('shares')
  await shares.deleteMany({})
  const instances = [new Instance(), new Instance()]
  const port = await commonPort(ADDRESSES)
  const proxies = []
  for (const [index, instance] of instances.entries()) {
    await instance.start(sample.uri)
    closing.push(() => instance.kill())
    const proxy = await proxyTo({ host: '127.0.0.1', port: instance.port }, { host: ADDRESSES[index], port })
    closing.push(() => proxy.close())
    proxies.push(proxy)
  }
  const names = await nameServer(ADDRESSES)
  closing.push(names.stop)
  const target = `dns://127.0.0.1:${names.port}/near.test:${port}`
  const permissions = new Permcached({ target, token: TOKEN, defaultSubject: 'user', deadlineMs: 1_500, near: { maxEntries: 100 } })
  closing.push(() => permissions.close())
  await permissions.ready({ deadlineMs: 20_000 })

  let isRunning = true
  const all = [ZOE, ADA].flatMap((user) => [SHARED, PRIVATE].map((file) => new Share(user, file)))
  const write = async (share) => {
    while (isRunning) {
      const granted = !share.states.at(-1).granted
      const filter = { file_id: id(share.file), shared_with_user_id: id(share.user) }
      const state = { granted, from: performance.now(), surely: Infinity }
      share.states.push(state)
      if (granted) await shares.insertOne({ ...filter, share_type: 'internal', is_active: true })
      else if (random(2) === 0) await shares.deleteMany(filter)
      else await shares.updateMany(filter, { $set: { is_active: false } })
      state.surely = performance.now()
      await pause(random(3) === 0 ? random(50) : 200 + random(1_300))
    }
  }
  const counts = { asked: 0, near: 0, nearAllowed: 0, errors: 0 }
  const violations = []
  const ask = async (share) => {
    while (isRunning) {
      const asked = performance.now()
      try {
        const resource = { type: 'file', id: share.file }
        const { allowed, tier, ageMs } = await permissions.check({ subject: share.user, permission: 'read', resource })
        const answered = performance.now()
        counts.asked += 1
        if (tier === 'NEAR') counts.near += 1
        if (tier === 'NEAR' && allowed) counts.nearAllowed += 1
        if (!share.permits(allowed, asked, answered)) {
          violations.push({ allowed, tier, ageMs, asked, answered, states: share.states.slice(-4) })
        }
      } catch (error) {
        counts.errors += 1
        assert.ok(['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'INTERNAL'].includes(error.code), error)
      }
      await pause(1)
    }
  }
  const faults = {}
  const harm = async () => {
    while (isRunning) {
      await pause(100 + random(400))
      const at = random(2)
      const [instance, proxy] = [instances[at], proxies[at]]
      const kind = ['frozen', 'frozen', 'frozen', 'stalled', 'cut', 'killed', 'everything'][random(7)]
      faults[kind] = (faults[kind] ?? 0) + 1
      if (kind === 'frozen') {
        instance.process.kill('SIGSTOP')
        // Thawed early, it answers what was asked meanwhile from what it knew before.
        await pause(random(2) === 0 ? random(BOUND_MS) : random(2_500))
        instance.process.kill('SIGCONT')
      } else if (kind === 'stalled') {
        proxy.stall()
        await pause(random(2_500))
        proxy.resume()
      } else if (kind === 'cut') {
        proxy.cut()
      } else if (kind === 'killed') {
        await instance.kill()
        await pause(random(500))
        await instance.start(sample.uri)
      } else {
        await permissions.invalidate({ all: true }, { deadlineMs: 1_000 }).catch(() => undefined)
      }
    }
  }
  const running = Promise.all([...all.map(write), ...all.flatMap((share) => [ask(share), ask(share)]), harm()])
  await pause(SECONDS * 1_000)
  isRunning = false
  await running
  const writes = all.reduce((sum, { states }) => sum + states.length - 1, 0)
  const seen = JSON.stringify({ ...counts, writes, faults })
  assert.deepEqual(violations.slice(0, 3), [], `${violations.length} violations: ${seen}`)
  assert.ok(counts.near > 100 * SECONDS && counts.nearAllowed > 20 * SECONDS && writes > SECONDS, seen)
  console.log(seen)
})
