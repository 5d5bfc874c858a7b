// Several instances behind one name: restarts under load, and names whose addresses change. Requires Linux, where every
// address of 127.0.0.0/8 is this machine.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { until } from './support/databases.mjs'
import { commonPort, nameServer } from './support/names.mjs'

// Without this, grpc-js uses only the system's resolver, whatever name server the target names.
process.env.GRPC_NODE_USE_ALTERNATIVE_RESOLVER = 'true'
const { DeadlineExceeded, Permcached, PermcachedError } = await import('permcached')
const { scripted } = await import('./support/scripted.mjs')
const { BOB, sampleDatabase, schema, SHARED, ZOE } = await import('./support/samples.mjs')

const ADDRESSES = ['127.0.0.1', '127.0.0.2']
const TOKEN = 'a-secret-of-this-test-and-of-no-other'
const closing = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

/** An instance at an address. */
class Instance {
  constructor(address, port, uri) {
    this.address = address
    this.args = ['serve', '--bind', address, '--port', String(port), '--schema', schema]
    this.env = {
      PATH: process.env.PATH,
      MONGODB_URI: uri,
      AUTH_TOKENS: `backend:${TOKEN}`,
      REDIS_URL: process.env.TEST_REDIS,
      REDIS_SECRET: 'b'.repeat(64),
    }
    this.url = `http://${address}:${port}`
  }

  async start() {
    this.process = spawn(process.env.PERMCACHED_PROGRAM, this.args, { env: this.env, stdio: 'ignore' })
    const ready = () =>
      fetch(`${this.url}/readyz`).then(
        (response) => response.ok,
        () => false,
      )
    await until(`${this.address} to be ready`, ready)
  }

  async stop(signal) {
    const { process: child } = this
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((done) => child.once('close', done))
    child.kill(signal)
    await ended
  }
}

test('a rolling restart under load, and kills, without a failed call', async () => {
  const sample = await sampleDatabase()
  closing.push(() => sample.close())
  const port = await commonPort(ADDRESSES)
  const names = await nameServer(ADDRESSES)
  closing.push(names.stop)
  const instances = ADDRESSES.map((address) => new Instance(address, port, sample.uri))
  for (const instance of instances) {
    await instance.start()
    closing.push(() => instance.stop('SIGKILL'))
  }
  const target = `dns://127.0.0.1:${names.port}/instances.test:${port}`
  const permissions = new Permcached({ target, token: TOKEN, defaultSubject: 'user', deadlineMs: 10_000 })
  closing.push(() => permissions.close())
  await permissions.ready()
  let isRunning = true
  let answered = 0
  const failures = []
  const ask = async (user, expected) => {
    while (isRunning) {
      try {
        assert.equal(await permissions.can(user, 'read', 'file', SHARED), expected)
        answered += 1
      } catch (error) {
        failures.push(error)
      }
      await pause(2)
    }
  }
  const load = Promise.all(Array.from({ length: 20 }, (_, index) => ask(index % 2 === 0 ? BOB : ZOE, index % 2 === 0)))
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    for (const instance of instances) {
      await instance.stop(signal)
      await pause(200)
      await instance.start()
      // The next one stops only after this one serves again.
      const before = answered
      await until('answers', () => answered > before + 200)
    }
  }
  isRunning = false
  await load
  assert.deepEqual(failures, [])
  assert.ok(answered > 800, String(answered))
})

test('a name that gains an address: the new instance gets calls; one that loses an address: the old instance gets none', async () => {
  const port = await commonPort(ADDRESSES)
  const servers = []
  for (const host of ADDRESSES) servers.push(await scripted({}, { host, port }))
  closing.push(() => servers.forEach(({ stop }) => stop()))
  // At first the name does not exist at all.
  const names = await nameServer([])
  closing.push(names.stop)
  const permissions = new Permcached({ target: `dns://127.0.0.1:${names.port}/changes.test:${port}`, deadlineMs: 10_000 })
  closing.push(() => permissions.close())
  const ask = (options) => permissions.can('a', 'read', 'file', 'x', options)
  await assert.rejects(ask({ deadlineMs: 300 }), DeadlineExceeded)
  const [first, second] = servers.map(({ calls }) => calls)
  names.addresses = ['127.0.0.1']
  await until('the first instance', async () => (await ask().catch(() => false)) && first.length > 0, 60_000)
  assert.equal(second.length, 0)
  names.addresses = ADDRESSES
  await until('the second instance', async () => (await ask()) && second.length > 0, 60_000)
  names.addresses = ['127.0.0.2']
  // Its server goes on, so only the name can be the reason.
  await until(
    'the first instance to get no calls',
    async () => {
      const before = first.length
      for (let count = 0; count < 10; count += 1) await ask()
      return first.length === before
    },
    60_000,
  )
  // The name server is asked again and again, but not with every call.
  assert.ok(names.queries < first.length + second.length, String(names.queries))
})

test('a token is not sent in plaintext to a name with a public address', async () => {
  const names = await nameServer(['192.0.2.1'])
  closing.push(names.stop)
  const target = `dns://127.0.0.1:${names.port}/public.test:50051`
  const permissions = new Permcached({ target, token: TOKEN, deadlineMs: 1_000 })
  const isRefusal = (error) =>
    error instanceof PermcachedError &&
    error.code === 'FAILED_PRECONDITION' &&
    /192\.0\.2\.1/.test(error.message) &&
    !error.message.includes(TOKEN)
  await assert.rejects(permissions.can('a', 'read', 'file', 'x'), isRefusal)
  const begin = performance.now()
  await assert.rejects(permissions.ready(), isRefusal)
  await assert.rejects(permissions.can('a', 'read', 'file', 'x'), isRefusal)
  assert.ok(performance.now() - begin < 900)
  await permissions.close()
  for (const options of [{ insecure: true, token: TOKEN }, { token: undefined }]) {
    const trusting = new Permcached({ target, deadlineMs: 100, ...options })
    await assert.rejects(trusting.can('a', 'read', 'file', 'x'), DeadlineExceeded)
    await trusting.close()
  }
})
