// The API, drawn by Swagger UI from this server's own description of it.
import 'swagger-ui-dist/swagger-ui.css';
// @ts-expect-error: the package has no types
import SwaggerUIBundle from 'swagger-ui-dist/swagger-ui-bundle.js';

SwaggerUIBundle({ url: 'openapi.json', dom_id: '#api', validatorUrl: null, deepLinking: true });
