// Checks what the package looks like to its users: types in both module systems, the entries, what would be published, and the
// format of the code. Requires a build.
import { execFileSync } from 'node:child_process'
import { copyFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const { version, exports: entries } = createRequire(import.meta.url)('../package.json')

function run(name, ...args) {
  try {
    return execFileSync(join(root, 'node_modules/.bin', name), args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    console.error(`${name} ${args.join(' ')}\n${error.stdout}${error.stderr}`)
    process.exit(1)
  }
}

run('prettier', '--check', '.')

// An .mts file is a module, a .ts file of this package is CommonJS.
const module = join(root, 'test/types/copied.mts')
copyFileSync(join(root, 'test/types/usage.ts'), module)
try {
  run('tsc', '-p', 'test/types')
} finally {
  rmSync(module)
}

run('publint', '--strict')
run('attw', '--pack', '.')
// Without links to the sources, for which the repository would have to be a clone of one that typedoc knows.
run('typedoc', '--emit', 'none', '--disableSources')

// What would be published: everything that the entries name, and nothing of the repository's own.
const [{ files }] = JSON.parse(
  execFileSync('npm', ['pack', '--dry-run', '--json'], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
)
const paths = files.map(({ path }) => path)
const named = Object.values(entries).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry).flatMap(Object.values)))
const missing = ['README.md', 'CHANGELOG.md', 'LICENSE', ...named.map((path) => path.replace('./', ''))].filter(
  (path) => !paths.includes(path),
)
const others = paths.filter((path) => !/^(dist\/[\w/-]+\.(d\.)?(js|ts|mjs|mts)|README\.md|CHANGELOG\.md|LICENSE|package\.json)$/.test(path))
if (missing.length > 0 || others.length > 0) {
  console.error(`npm pack: missing ${missing}; not to be published: ${others}`)
  process.exit(1)
}
console.log(`permcached ${version}: types, entries and ${paths.length} files of the package are as they have to be`)
