package v1alpha1

// SecretKeySelector names one value in a Secret of the same namespace.
type SecretKeySelector struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Key of the value in the Secret.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Key string `json:"key,omitempty"`
}

// EncryptOptionSource says where the value of an option is.
type EncryptOptionSource struct {
	// The value is in a Secret.
	// +optional
	SecretKeyRef SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// EncryptOption is an option of a mount whose value is secret.
type EncryptOption struct {
	// Name of the option.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Where the value is. It travels to Alluxio in the mount call and to the gateway in a file, never in an argument or an
	// environment variable.
	// +optional
	ValueFrom EncryptOptionSource `json:"valueFrom,omitempty"`
}
