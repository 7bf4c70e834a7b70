import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vite';

import { guide } from './guide.js';

// The page of `landline demo`. What is built here is not in the repository; it travels in the wheel.
export default defineConfig({
  // Relative, so that a path prefix in front of the server does no harm.
  base: './',
  plugins: [guide()],
  resolve: {
    alias: [
      {
        // Web Chat uses three packages that translate themselves to old JavaScript when they are installed. Nothing of
        // ours runs code at install (.npmrc), and no browser of today needs it: their sources are taken as they are.
        find: /^(abort-controller|markdown-it-attrs|p-defer)-es5$/,
        replacement: fileURLToPath(new URL('./node_modules/$1-es5/src/index.mjs', import.meta.url))
      }
    ]
  },
  build: {
    outDir: '../src/landline/demo/static',
    emptyOutDir: true,
    // The licences of everything that is in the bundle travel with it.
    license: { fileName: 'licenses.md' },
    // Web Chat is one large piece that every visitor needs, and the server is on the same machine.
    chunkSizeWarningLimit: 5000,
    reportCompressedSize: false
  }
});
