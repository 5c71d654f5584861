// What OHIF reads before it starts. The server puts the path below which it answers in the place of the braces.
window.config = {
  routerBasename: '/ohif/',
  showStudyList: true,
  extensions: [],
  modes: [],
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  useSharedArrayBuffer: 'FALSE',
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'Studies of this DeepGrow 3D server',
        name: 'deepgrow3d',
        qidoRoot: '{{ROOT}}/proxy/dicom/qido',
        wadoRoot: '{{ROOT}}/proxy/dicom/wado',
        wadoUriRoot: '{{ROOT}}/proxy/dicom/wado',
        qidoSupportsIncludeField: true,
        supportsReject: false,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        dicomUploadEnabled: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: false,
        bulkDataURI: { enabled: true },
      },
    },
  ],
};

// The MONAI Label panel proposes port 8000 of this host, wherever the page came from: propose this server. At every load,
// because all ports of a host share their cookies: the one that is there may be of another server.
document.cookie = 'MONAILABEL_SERVER_URL=' + escape(location.origin + '{{ROOT}}/');
