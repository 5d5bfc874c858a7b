// A mongod (a replica set of one node) and a Redis, on free ports.
import { spawn } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import mongoose from 'mongoose'

const PATIENCE_MS = 60_000

/** Waits until a condition holds, and returns its value. */
export async function until(what, condition, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs
  for (;;) {
    const met = await condition()
    if (met) return met
    if (Date.now() > end) throw new Error(`timed out after ${patienceMs} ms waiting for ${what}`)
    await pause(20)
  }
}

/** A port that is free on 127.0.0.1. */
export function freePort(host = '127.0.0.1') {
  return new Promise((done, fail) => {
    const server = createServer()
    server.once('error', fail)
    server.listen(0, host, () => {
      const { port } = server.address()
      server.close(() => done(port))
    })
  })
}

function start(program, args, directory) {
  mkdirSync(directory, { recursive: true })
  const log = createWriteStream(join(directory, 'log'))
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.pipe(log)
  child.stderr.pipe(log)
  return child
}

export async function startMongod(program, directory, port) {
  const child = start(
    program,
    [
      ...['--port', port, '--dbpath', directory, '--replSet', 'rs0', '--bind_ip', '127.0.0.1', '--nounixsocket'],
      ...['--wiredTigerCacheSizeGB', '0.25', '--oplogSize', '64', '--setParameter', 'diagnosticDataCollectionEnabled=false'],
    ].map(String),
    directory,
  )
  const client = new mongoose.mongo.MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`)
  await client.connect()
  const admin = client.db('admin')
  await admin.command({ replSetInitiate: { _id: 'rs0', members: [{ _id: 0, host: `127.0.0.1:${port}` }] } })
  await until('a primary', async () => (await admin.command({ hello: 1 })).isWritablePrimary)
  await client.close()
  return { process: child, uri: `mongodb://127.0.0.1:${port}` }
}

export async function startRedis(program, directory, port) {
  const child = start(program, ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], directory)
  const answers = () =>
    new Promise((done) => {
      const socket = createConnection(port, '127.0.0.1')
      socket.once('connect', () => done(socket.destroy() !== undefined))
      socket.once('error', () => done(false))
    })
  await until('Redis', answers)
  return { process: child, uri: `redis://127.0.0.1:${port}` }
}
