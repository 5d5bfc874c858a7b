// Starts everything that the example consists of: MongoDB, permcached and the application. Ends all of it with Ctrl+C.
//
// MONGOD and PERMCACHED_PROGRAM name the programs. `make example` sets both.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import mongoose from 'mongoose'
import { startPermcached } from 'permcached/testing'

const directory = import.meta.dirname
const scratch = mkdtempSync(join(tmpdir(), 'permcached-example-'))
let mongod, server

async function stop(code) {
  await server?.stop()
  mongod?.kill('SIGKILL')
  rmSync(scratch, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  process.exit(code)
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop(0))

function freePort() {
  return new Promise((done) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address()
      probe.close(() => done(port))
    })
  })
}

/** A replica set of one node, which permcached requires to see changes at once. */
async function startMongod() {
  const port = String(await freePort())
  const options = ['--port', port, '--dbpath', scratch, '--replSet', 'rs0', '--bind_ip', '127.0.0.1', '--nounixsocket']
  mongod = spawn(process.env.MONGOD ?? 'mongod', [...options, '--wiredTigerCacheSizeGB', '0.25', '--oplogSize', '64'], { stdio: 'ignore' })
  mongod.once('error', (error) => {
    console.error(`mongod cannot be started (${error.code}): use make example, or set MONGOD`)
    stop(1)
  })
  const client = await mongoose.createConnection(`mongodb://127.0.0.1:${port}/?directConnection=true`).asPromise()
  const admin = client.db.admin()
  await admin.command({ replSetInitiate: { _id: 'rs0', members: [{ _id: 0, host: `127.0.0.1:${port}` }] } })
  while (!(await admin.command({ hello: 1 })).isWritablePrimary) await pause(50)
  await client.close()
  return `mongodb://127.0.0.1:${port}/example?replicaSet=rs0`
}

try {
  const mongodbUri = await startMongod()
  server = await startPermcached({ schema: join(directory, 'schema.toml'), mongodbUri })
  process.env.PERMCACHED_TARGET = server.target
  process.env.PERMCACHED_TOKEN = server.token

  const { seed } = await import('./seed.js')
  const { app } = await import('./app.js')
  const { permissions } = await import('./permissions.js')
  await mongoose.connect(mongodbUri)
  await Promise.all(Object.values(mongoose.models).map((model) => model.init()))
  await seed()
  await permissions.ready()
  const port = process.env.PORT ?? 3000
  app.listen(port, '127.0.0.1', (error) => {
    if (error === undefined) return console.log(`The example listens on http://localhost:${port}: README.md has commands to try.`)
    console.error(error.message)
    stop(1)
  })
} catch (error) {
  console.error(error)
  await stop(1)
}
